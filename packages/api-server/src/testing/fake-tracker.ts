/** One tracked device of the fake driver: names and a CBT map, no data. */
import { randomUUID } from "node:crypto";
import type { AttachResponse, ByteRange, CbtState, DiffRange, TrackerStatus } from "@blksnap/api";
import { ControlError } from "@blksnap/api";

const BLOCK_BYTES = 65_536;
const NO_TIME = { buckets: [0, 0], sum_us: 0 };

export class FakeTracker {
  readonly device: string;
  readonly front: string;
  readonly generationId: string = randomUUID();
  readonly capacity: number;
  readonly readMap: Uint8Array;
  readonly #writeMap: Uint8Array;
  #active = 1;
  snapshotId: string | null = null;
  image: string | null = null;
  errorCode = 0;

  readonly kind: AttachResponse["attach_kind"];

  constructor(
    device: string,
    front: string,
    capacity: number,
    kind: AttachResponse["attach_kind"] = "front",
  ) {
    this.kind = kind;
    this.device = device;
    this.front = front;
    this.capacity = capacity;
    const blocks = Math.ceil(capacity / BLOCK_BYTES);
    this.readMap = new Uint8Array(blocks);
    this.#writeMap = new Uint8Array(blocks);
  }

  attachAnswer(already: boolean): AttachResponse {
    const { device, front, kind } = this;
    const answer = { device, front, already_attached: already, persistent: false };
    return { ...answer, attach_kind: kind, live: kind === "live" ? device : null };
  }

  get changesNumber(): number {
    return this.#active - 1;
  }

  cbt(): CbtState {
    return {
      block_bytes: BLOCK_BYTES,
      capacity_bytes: this.capacity,
      block_count: this.readMap.length,
      generation_id: this.generationId,
      generation_reason: "first_attach",
      changes_number: this.changesNumber,
    };
  }

  /** Freezes the map, as a take does. */
  switchMaps(): void {
    this.readMap.set(this.#writeMap);
    this.#active++;
  }

  mark(ranges: readonly ByteRange[]): void {
    for (const { offset_bytes, length_bytes } of ranges) {
      const end = offset_bytes + length_bytes;
      if (end > this.capacity) {
        throw new ControlError(
          "MARK_RANGE",
          `bytes ${offset_bytes} to ${end} end beyond ${this.device}`,
        );
      }
    }
    for (const { offset_bytes, length_bytes } of ranges) {
      const first = Math.floor(offset_bytes / BLOCK_BYTES);
      const end = Math.ceil((offset_bytes + length_bytes) / BLOCK_BYTES);
      this.#writeMap.fill(this.#active, first, end);
      for (let block = first; block < end; block++) {
        this.readMap[block] = Math.max(this.readMap[block]!, this.changesNumber);
      }
    }
  }

  changedSince(since: number): DiffRange[] {
    const ranges: DiffRange[] = [];
    let start = -1;
    for (let block = 0; block <= this.readMap.length; block++) {
      const changed = block < this.readMap.length && this.readMap[block]! > since;
      if (changed && start < 0) start = block;
      if (changed || start < 0) continue;
      const end = Math.min(block * BLOCK_BYTES, this.capacity);
      const offset_bytes = start * BLOCK_BYTES;
      ranges.push({ offset_bytes, length_bytes: end - offset_bytes, kind: "changed" });
      start = -1;
    }
    return ranges;
  }

  status(): TrackerStatus {
    return {
      device: this.device,
      device_number: "7:0",
      front: this.front,
      front_live: true,
      attach_kind: this.kind,
      splice: this.kind === "live" ? { node: this.device, state: "on", why: null } : null,
      capacity_bytes: this.capacity,
      original_capacity_bytes: this.capacity,
      capacity_why: null,
      logical_block_bytes: 512,
      read_only: false,
      zero_copy: false,
      persistence: { state: "off", why: null },
      reactor: 0,
      cbt: this.cbt(),
      snapshot_id: this.snapshotId,
      image: this.image,
      nbd_uri: null,
      error_code: this.errorCode,
      kept_discard_bytes: 0,
      durations: { bounds_us: [32], copy: NO_TIME, take_stall: NO_TIME },
      io: noIo(),
    };
  }
}

export function noIo(): TrackerStatus["io"] {
  return {
    reads: 0,
    read_bytes: 0,
    writes: 0,
    write_bytes: 0,
    discards: 0,
    discard_bytes: 0,
    flushes: 0,
    errors: 0,
  };
}
