/** A tracked device without a daemon: its image is a file, and its changes are recorded by block. */
import { randomUUID } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DiffRange } from "@blksnap/api";
import { BlksnapClientError, type ChangedExtentsOptions } from "@blksnap/client";
import type { ImageTrims } from "../dist/done-chunks.js";
import type { BackupClient } from "../dist/snapshot.js";

/** Later than all takes of the fake machine, whatever this machine's clock is. */
export const NOW_MS = Date.parse("2026-06-01T00:00:00Z");
export const MIB = 2 ** 20;
const BLOCK_BYTES = 65_536;

export class FakeMachine {
  readonly folder: string = mkdtempSync(join(tmpdir(), "blksnap-backup-"));
  readonly device: string;
  /** The present content of the device. */
  content: Buffer;
  generation: string = randomUUID();
  number = 0;
  /** The snapshot's error in snapshot_info. */
  errorCode = 0;
  snapshotId: string | null = null;
  /** Of the image, since the daemon began. */
  discards = 0;
  imageWrites = 0;
  isReadOnly = false;
  isReleasable = false;
  /** Freed over NBD, of the image. */
  freedBytes = 0;
  /** Address of the image's export. */
  exported: string | null = null;
  /** An earlier daemon took the snapshot. */
  isResumed = false;
  /** Makes cbtInfo fail from now on. */
  isSpliceLost = false;
  destroyed = 0;
  /** Called with the number of status calls so far, so that a take can happen in between. */
  readonly client: BackupClient;
  #changed = new Map<number, { number: number; isDiscarded: boolean }>();
  #takenMs = Date.parse("2026-01-01T00:00:00Z");

  constructor(capacityBytes: number, device = "/dev/vg/data") {
    this.device = device;
    this.content = Buffer.alloc(capacityBytes);
    this.client = this.#makeClient();
  }

  get image(): string {
    return join(this.folder, "image");
  }

  /** A clock that is set. */
  setClock(time: string): void {
    this.#takenMs = Date.parse(time);
  }

  get takenAt(): string {
    return new Date(this.#takenMs).toISOString();
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  write(offsetBytes: number, data: Uint8Array): void {
    this.content.set(data, offsetBytes);
    this.#mark(offsetBytes, data.length, false);
  }

  discard(offsetBytes: number, lengthBytes: number): void {
    this.content.fill(0, offsetBytes, offsetBytes + lengthBytes);
    this.#mark(offsetBytes, lengthBytes, true);
  }

  /** Like an attach after a detach: it is unknown what changed. */
  beginGeneration(): void {
    this.generation = randomUUID();
    this.number = 0;
    this.#changed = new Map();
  }

  take(id: string = randomUUID()): void {
    writeFileSync(this.image, this.content);
    this.number++;
    this.#takenMs += 1000;
    this.snapshotId = id;
    this.errorCode = 0;
  }

  /** A snapshot that is taken and destroyed. */
  pass(): void {
    this.number++;
    this.#takenMs += 1000;
  }

  /** Frees parts of the image, which are zeros from then on. */
  openTrims(): ImageTrims {
    const file = openSync(this.image, "r+");
    return {
      trim: async (offsetBytes, lengthBytes) => {
        writeSync(file, Buffer.alloc(lengthBytes), 0, lengthBytes, offsetBytes);
        this.freedBytes += lengthBytes;
      },
      destroy: () => closeSync(file),
    };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  #mark(offsetBytes: number, lengthBytes: number, isDiscarded: boolean): void {
    const end = Math.ceil((offsetBytes + lengthBytes) / BLOCK_BYTES);
    for (let block = Math.floor(offsetBytes / BLOCK_BYTES); block < end; block++) {
      this.#changed.set(block, { number: this.number + 1, isDiscarded });
    }
  }

  #rangesSince(since: number): DiffRange[] {
    return [...this.#changed]
      .filter(([, { number }]) => number > since && number <= this.number)
      .sort(([one], [other]) => one - other)
      .map(([block, { isDiscarded }]) => ({
        offset_bytes: block * BLOCK_BYTES,
        length_bytes: BLOCK_BYTES,
        kind: isDiscarded ? "discarded" : "changed",
      }));
  }

  async *#changedExtents(since: number, wanted: ChangedExtentsOptions = {}) {
    if (wanted.generation !== this.generation) {
      throw new BlksnapClientError("CBT_GENERATION_CHANGED", "a new generation");
    }
    if (wanted.changesNumber !== this.number) {
      throw new BlksnapClientError("CBT_NUMBER_CHANGED", "another snapshot was taken");
    }
    yield* this.#rangesSince(since);
  }

  #cbt() {
    return {
      block_bytes: BLOCK_BYTES,
      capacity_bytes: this.content.length,
      block_count: Math.ceil(this.content.length / BLOCK_BYTES),
      generation_id: this.generation,
      generation_reason: "first_attach" as const,
      changes_number: this.number,
    };
  }

  #deviceStatus() {
    const none = { reads: 0, read_bytes: 0, writes: 0, write_bytes: 0, flushes: 0, errors: 0 };
    const { discards, imageWrites: writes } = this;
    const image_io = { ...none, writes, discards, discard_bytes: discards * 512 + this.freedBytes };
    return { device: this.device, image: this.image, image_io };
  }

  #snapshotStatus(id: string) {
    const { takenAt: taken_at, isReadOnly: read_only_images, isResumed: resumed } = this;
    const devices = [this.#deviceStatus()];
    return {
      id,
      taken_at,
      read_only_images,
      releasable_images: this.isReleasable,
      resumed,
      devices,
    };
  }

  #makeClient(): BackupClient {
    const { device } = this;
    const front = "/dev/ublkb0";
    return {
      cbtInfo: async () => {
        if (this.isSpliceLost) throw new BlksnapClientError("SPLICE_LOST", "led elsewhere");
        return { device, front, ...this.#cbt() };
      },
      changedExtents: (_, since, wanted) => this.#changedExtents(since, wanted),
      snapshotInfo: async () => {
        const image = this.snapshotId === null ? null : this.image;
        const error_code = this.errorCode;
        const told = { device, front, image, nbd_uri: this.exported };
        return { ...told, error_code, snapshot_id: this.snapshotId };
      },
      snapshotCreate: async ({ readOnlyImages = false, releasableImages = false }) => {
        this.isReadOnly = readOnlyImages || releasableImages;
        this.isReleasable = releasableImages;
        this.freedBytes = 0;
        return { id: randomUUID(), attached: [] };
      },
      snapshotTake: async (taken) => {
        this.take(taken);
        return {
          id: taken,
          stall_us: 1,
          images: [{ device, image: this.image }],
          file_systems: [],
        };
      },
      snapshotDestroy: async (destroyed) => {
        this.snapshotId = null;
        this.destroyed++;
        return { id: destroyed };
      },
      status: async () => ({
        trackers: [{ device, front }],
        snapshots: this.snapshotId === null ? [] : [this.#snapshotStatus(this.snapshotId)],
      }),
    };
  }
}

export async function assertSame(path: string, content: Buffer): Promise<void> {
  if (!(await readFile(path)).equals(content)) throw new Error(`${path} has other bytes`);
}

/** The error that a call fails with. */
export async function failureOf(call: Promise<unknown>): Promise<Error & { code: string }> {
  try {
    await call;
  } catch (error) {
    return error as Error & { code: string };
  }
  throw new Error("the call did not fail");
}
