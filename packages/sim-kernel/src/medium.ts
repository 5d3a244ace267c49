import type { CachedBytes } from "./cached-bytes.js";
import { Errno } from "./errno.js";
import type { Random } from "./random.js";
import type { Scheduler } from "./scheduler.js";

export type IoKind = "read" | "write" | "sync" | "allocate" | "punch" | "zero" | "discard";

const SECTOR_BYTES = 512;
const KILLED_WAYS = 3;

/** One I/O on its way to a medium. */
export class Io {
  readonly kind: IoKind;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  /** Data of a read or write; used when the medium carries it out. */
  readonly data: Uint8Array | undefined;
  /** A write that is durable when it ends. */
  readonly isDurable: boolean;
  readonly done: (result: number) => void;
  state: "queued" | "hung" | "executed" = "queued";
  /** Its process dies: it is carried out, or not, or in part. Undefined if it cannot be abandoned. */
  abandon: (() => void) | undefined;

  constructor(
    kind: IoKind,
    offsetBytes: number,
    lengthBytes: number,
    data: Uint8Array | undefined,
    isDurable: boolean,
    done: (result: number) => void,
  ) {
    this.kind = kind;
    this.offsetBytes = offsetBytes;
    this.lengthBytes = lengthBytes;
    this.data = data;
    this.isDurable = isDurable;
    this.done = done;
  }
}

/** A fault of an I/O. */
export interface IoFault {
  /** It fails, without effect. */
  readonly errno?: number;
  /** Only so many bytes are transferred. */
  readonly shortBytes?: number;
  readonly delayMs?: number;
  /** It is not carried out or answered until the medium is released. */
  readonly hangs?: boolean;
}

/** Owner of I/O: it dies with its owner. */
export interface IoOwner {
  begin(io: Io): void;
  end(io: Io): void;
}

/** The parts that media use. */
export interface MediumParts {
  readonly scheduler: Scheduler;
  readonly random: Random;
}

/** Answers I/O after a while, in any order. */
export class Medium {
  readonly name: string;
  /** Called for each I/O when it is submitted. */
  fault: ((io: Io) => IoFault | undefined) | undefined;
  /** Called for each call on names. @returns whether it hangs until the medium is released */
  callHangs: ((call: string) => boolean) | undefined;
  latencyUs: readonly [least: number, most: number] = [20, 400];
  /** How many I/Os were carried out. */
  readonly counts: Record<IoKind, number> = {
    read: 0,
    write: 0,
    sync: 0,
    allocate: 0,
    punch: 0,
    zero: 0,
    discard: 0,
  };
  /** 512-byte sectors, as in /sys/block/…/stat. */
  readonly sectors = { read: 0, write: 0, discard: 0 };
  readonly #hung: (() => void)[] = [];
  readonly #parts: MediumParts;

  constructor(name: string, parts: MediumParts) {
    this.name = name;
    this.#parts = parts;
  }

  /** How many I/Os hang. */
  get hung(): number {
    return this.#hung.length;
  }

  /** I/O that hangs is carried out now, and answered. */
  release(): void {
    for (const resume of this.#hung.splice(0)) resume();
  }

  /** The machine stops: I/O that hangs is never carried out, and the counters are reset. */
  forget(): void {
    this.#hung.length = 0;
    Object.assign(this.sectors, { read: 0, write: 0, discard: 0 });
  }

  /** Makes a call on names, now or when the medium is released. */
  call(name: string, make: () => void): void {
    if (this.callHangs?.(name) === true) this.#hung.push(make);
    else make();
  }

  submit(io: Io, content: CachedBytes, owner: IoOwner | undefined): void {
    const { scheduler, random } = this.#parts;
    owner?.begin(io);
    io.abandon = () => this.#abandon(io, content);
    const fault = this.fault?.(io);
    const [least, most] = this.latencyUs;
    const delayUs = least + random.below(most - least + 1) + 1000 * (fault?.delayMs ?? 0);
    const carryOut = (): void => {
      // It was abandoned, or carried out, when its process died.
      if (io.state === "executed") return;
      const result = this.#execute(io, content, fault);
      scheduler.after(random.below(10), () => {
        owner?.end(io);
        io.done(result);
      });
    };
    if (fault?.hangs !== true) {
      scheduler.after(delayUs, carryOut);
      return;
    }
    io.state = "hung";
    this.#hung.push(carryOut);
  }

  #abandon(io: Io, content: CachedBytes): void {
    if (io.state !== "queued") return;
    const way = this.#parts.random.below(KILLED_WAYS);
    const sectors = Math.max(1, Math.ceil(io.lengthBytes / SECTOR_BYTES));
    const shortBytes = this.#parts.random.below(sectors) * SECTOR_BYTES;
    if (way === 0) this.#execute(io, content, undefined);
    if (way === 1 && io.kind === "write") this.#execute(io, content, { shortBytes });
    io.state = "executed";
  }

  #execute(io: Io, content: CachedBytes, fault: IoFault | undefined): number {
    io.state = "executed";
    if (fault?.errno !== undefined) return -fault.errno;
    this.counts[io.kind]++;
    const length = Math.min(fault?.shortBytes ?? io.lengthBytes, io.lengthBytes);
    const { offsetBytes } = io;
    switch (io.kind) {
      case "read": {
        const read = content.read(offsetBytes, (io.data as Uint8Array).subarray(0, length));
        this.sectors.read += read / SECTOR_BYTES;
        return read;
      }
      case "write":
        content.write(offsetBytes, (io.data as Uint8Array).subarray(0, length));
        if (io.isDurable) content.flushRange(offsetBytes, length);
        this.sectors.write += length / SECTOR_BYTES;
        return length;
      case "sync":
        content.flush();
        return 0;
      case "allocate":
        content.resize(Math.max(content.sizeBytes, offsetBytes + io.lengthBytes));
        return 0;
      case "discard":
        this.sectors.discard += length / SECTOR_BYTES;
        content.zero(offsetBytes, io.lengthBytes);
        return 0;
      case "punch":
      case "zero":
        this.sectors.write += length / SECTOR_BYTES;
        content.zero(offsetBytes, io.lengthBytes);
        return 0;
    }
  }
}

/** The kernel's answer to I/O before a medium sees it; 0 if it is valid. */
export function checkRange(
  { kind, offsetBytes, lengthBytes }: Pick<Io, "kind" | "offsetBytes" | "lengthBytes">,
  sizeBytes: number,
  alignmentBytes: number,
): number {
  if (kind === "sync") return 0;
  if (offsetBytes < 0 || lengthBytes < 0) return -Errno.EINVAL;
  if (offsetBytes % alignmentBytes !== 0 || lengthBytes % alignmentBytes !== 0) {
    return -Errno.EINVAL;
  }
  if (kind === "read" || offsetBytes + lengthBytes <= sizeBytes) return 0;
  return kind === "write" ? -Errno.ENOSPC : -Errno.EINVAL;
}
