/**
 * A tracked device, as the main thread sees it.
 *
 * attach: open the original ─▶ CBT map ─▶ queue on a reactor ─▶ front ─▶ links
 * detach: the reverse, and only when nobody uses the front
 */

import { randomFillSync } from "node:crypto";
import { closeSync, constants, fsyncSync, openSync } from "node:fs";
import { CbtMap, cbtBlockShift, type TrackerGeometry } from "@blksnap/engine";
import { type BackingFile, major, minor, openBackingFile, type UblkControl } from "@blksnap/ublk";
import { MappedMemory } from "@blksnap/uring";
import { ControlError } from "../control/index.js";
import type { ReactorPool } from "../reactor/pool.js";
import type { TrackedDeviceCounters } from "../reactor/tracked-device.js";
import { addLink, linkName, removeLink } from "../system/links.js";
import type { MapFile, StateDirectory } from "../system/map-file.js";
import { ServedDevice } from "../system/served-device.js";
import { blockIdentity, identityOf } from "./identity.js";

const CHUNK_SHIFT = 18;
const BLOCK_SHIFT_MIN = 12;

/** What trackers share. */
export interface TrackerContext {
  readonly control: UblkControl;
  readonly reactors: ReactorPool;
  readonly state: StateDirectory;
  readonly frontDepth: number;
  readonly maxIoBytes: number;
}

export class Tracker {
  readonly id: number;
  /** The original's path, as attach was given it. */
  readonly device: string;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly reactor: number;
  readonly front: ServedDevice;
  /** Reads the frozen map beside the reactor, which owns it. */
  readonly cbt: CbtMap;
  /** Negative errno of the last snapshot's first lost block; 0 while all is well. */
  errorCode = 0;
  readonly #context: TrackerContext;
  readonly #cbtFile: MapFile;
  readonly #cbtMemory: MappedMemory;
  readonly #link: string | undefined;

  private constructor(context: TrackerContext, parts: TrackerParts) {
    this.#context = context;
    this.id = parts.id;
    this.device = parts.backing.path;
    this.identity = parts.identity;
    this.backing = parts.backing;
    this.geometry = parts.geometry;
    this.reactor = parts.reactor;
    this.front = parts.front;
    this.cbt = CbtMap.open(parts.cbtMemory.buffer);
    this.#cbtFile = parts.cbtFile;
    this.#cbtMemory = parts.cbtMemory;
    this.#link = addLink(linkName(this.device), this.front.path);
  }

  /**
   * Puts a front before the device. Nothing is left behind when it fails.
   * @throws ControlError DEVICE_…, OUT_OF_MEMORY; UblkError
   */
  static async attach(context: TrackerContext, id: number, path: string): Promise<Tracker> {
    const undo: (() => void)[] = [];
    try {
      const identity = identityOf(path);
      const backing = openBackingFile(path);
      undo.push(() => closeSync(backing.fd));
      const geometry = geometryOf(backing);
      const blockShift = cbtBlockShift(geometry.capacityBytes);
      const cbtBytes = CbtMap.byteLength(geometry.capacityBytes, blockShift);
      const cbtFile = context.state.create(`cbt-${id}`, cbtBytes);
      undo.push(() => context.state.remove(cbtFile));
      const cbtMemory = MappedMemory.file(cbtFile.fd, 0, cbtBytes);
      undo.push(() => cbtMemory.unmap());
      const generation = randomFillSync(new Uint8Array(16));
      CbtMap.create(cbtMemory.buffer, {
        capacityBytes: geometry.capacityBytes,
        blockShift,
        generation,
      });
      const reactor = context.reactors.assign();
      undo.push(() => context.reactors.release(reactor));
      const front = await startFront(context, { id, backing, geometry, cbtFile, reactor });
      const parts = { id, identity, backing, geometry, reactor, front, cbtFile, cbtMemory };
      return new Tracker(context, parts);
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }

  /** "major:minor" of the original; null for a regular file. */
  get deviceNumber(): string | null {
    if (this.backing.kind !== "block") return null;
    return `${major(this.backing.deviceNumber)}:${minor(this.backing.deviceNumber)}`;
  }

  /** Whether a path of this identity means this device. */
  hasIdentity(identity: string): boolean {
    return identity === this.identity || identity === blockIdentity(this.front.deviceNumber);
  }

  /**
   * Takes the front away.
   * @throws ControlError FRONT_IN_USE: mounted, or opened exclusively
   */
  async detach(): Promise<void> {
    const held = this.#holdFront();
    try {
      // What is still in the front's page cache belongs on the original.
      fsyncSync(held);
      await this.front.stop();
    } finally {
      closeSync(held);
    }
    removeLink(this.#link, this.front.path);
    this.#cbtMemory.unmap();
    this.#context.state.remove(this.#cbtFile);
    closeSync(this.backing.fd);
    this.#context.reactors.release(this.reactor);
  }

  /** True while the front is mounted or opened exclusively. */
  inUse(): boolean {
    try {
      closeSync(this.#holdFront());
      return false;
    } catch {
      return true;
    }
  }

  /** The reactor's counters of this device. */
  counters(): Promise<TrackedDeviceCounters> {
    const request = { type: "counters", tracker: this.id } as const;
    return this.#context.reactors.request<TrackedDeviceCounters>(this.reactor, request);
  }

  /** Opens the front exclusively: nobody can mount it while it goes away. */
  #holdFront(): number {
    try {
      return openSync(this.front.path, constants.O_RDWR | constants.O_EXCL);
    } catch (error) {
      throw new ControlError("FRONT_IN_USE", `the front ${this.front.path} is in use`, {
        cause: error,
      });
    }
  }
}

interface TrackerParts {
  readonly id: number;
  readonly identity: string;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly reactor: number;
  readonly front: ServedDevice;
  readonly cbtFile: MapFile;
  readonly cbtMemory: MappedMemory;
}

function geometryOf(backing: BackingFile): TrackerGeometry {
  const { capacityBytes, logicalBlockBytes, readOnly } = backing.params;
  if (readOnly) {
    throw new ControlError("DEVICE_READ_ONLY", `${backing.path} is read-only`);
  }
  if (capacityBytes < 2 ** CHUNK_SHIFT) {
    throw new ControlError(
      "DEVICE_TOO_SMALL",
      `${backing.path} has ${capacityBytes} bytes, less than one chunk of ${2 ** CHUNK_SHIFT}`,
    );
  }
  const blockShift = Math.max(BLOCK_SHIFT_MIN, Math.log2(logicalBlockBytes));
  return { capacityBytes, logicalBlockBytes, chunkShift: CHUNK_SHIFT, blockShift };
}

interface FrontParts {
  readonly id: number;
  readonly backing: BackingFile;
  readonly geometry: TrackerGeometry;
  readonly cbtFile: MapFile;
  readonly reactor: number;
}

function startFront(context: TrackerContext, parts: FrontParts): Promise<ServedDevice> {
  const { id: tracker, backing, geometry, cbtFile, reactor } = parts;
  return ServedDevice.start(context.control, {
    params: backing.params,
    queueDepth: context.frontDepth,
    maxIoBytes: context.maxIoBytes,
    features: 0,
    startQueue: (charFd) =>
      context.reactors.request(reactor, {
        type: "attach",
        tracker,
        charFd,
        originalFd: backing.fd,
        isBlock: backing.kind === "block",
        geometry,
        cbt: { fd: cbtFile.fd, lengthBytes: cbtFile.lengthBytes },
      }),
    queueEnded: () => context.reactors.request(reactor, { type: "awaitFrontEnd", tracker }),
  });
}
