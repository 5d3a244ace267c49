/**
 * Reads from a socket without its stream: large payloads go directly to their target, without a copy. A stream
 * allocates a buffer for each 64 KiB, joins and copies them, which is half of a client's CPU time for a GiB.
 */
import { connect, type NetConnectOpts, type Socket } from "node:net";
import { type ByteReader, lostConnection } from "./socket-reader.js";

/** Buffers for headers of replies, and data that arrived with them. */
const STAGE_BYTES = 65_536;
/** The socket needs one while the others hold data that no caller has requested yet. */
const STAGES = 3;
/** A smaller read is combined with the data after it. */
const DIRECT_MIN_BYTES = 32_768;

interface Wanted {
  readonly target: Uint8Array;
  have: number;
  readonly done: () => void;
  readonly fail: (error: Error) => void;
}

interface Staged {
  readonly stage: Uint8Array;
  readonly endBytes: number;
  takenBytes: number;
}

export class DirectReader implements ByteReader {
  readonly #free: Uint8Array[] = Array.from({ length: STAGES }, () => new Uint8Array(STAGE_BYTES));
  /** In the order of arrival. */
  readonly #staged: Staged[] = [];
  #wanted: Wanted | undefined;
  /** The buffer that the socket fills next: a stage, or the rest of the target. */
  #given: Uint8Array | undefined;
  /** Whether that is the target. */
  #isTarget = false;
  #isPaused = false;
  #isOver = false;
  #failure: Error | undefined;
  #socket: Socket | undefined;

  /** Starts to connect. Only one read may be pending. */
  static connect(options: NetConnectOpts): { socket: Socket; reader: DirectReader } {
    const reader = new DirectReader();
    const onread = {
      buffer: () => reader.#next(),
      callback: (bytes: number) => reader.#onBytes(bytes),
    };
    const socket = connect({ ...options, onread });
    reader.#socket = socket;
    socket.on("error", (error) => reader.#end(error));
    socket.on("end", () => reader.#end(undefined));
    socket.on("close", () => reader.#end(undefined));
    return { socket, reader };
  }

  /** @throws NbdError CONNECTION_LOST */
  async read(bytes: number): Promise<Buffer> {
    const all = Buffer.allocUnsafe(bytes);
    await this.readInto(all);
    return all;
  }

  /** Fills `target`. @throws NbdError CONNECTION_LOST */
  readInto(target: Uint8Array): Promise<void> {
    return new Promise((done, fail) => {
      this.#wanted = { target, have: 0, done, fail };
      this.#fill();
      if (this.#isOver) this.#giveUp();
    });
  }

  /** The socket calls it again, without a read in between, if it tries another address: reuse the same buffer. */
  #next(): Uint8Array {
    const wanted = this.#wanted;
    // While a caller waits, nothing is staged.
    if (this.#given === undefined && wanted !== undefined) {
      const left = wanted.target.subarray(wanted.have);
      this.#isTarget = left.length >= DIRECT_MIN_BYTES;
      if (this.#isTarget) this.#given = left;
    }
    this.#given ??= this.#free.pop()!;
    return this.#given;
  }

  /** Returns whether more may come. */
  #onBytes(bytes: number): boolean {
    const given = this.#given!;
    this.#given = undefined;
    const wanted = this.#wanted;
    if (this.#isTarget) {
      this.#isTarget = false;
      // If the read was cancelled meanwhile, no caller waits for more.
      if (wanted === undefined) return false;
      wanted.have += bytes;
      this.#endIfFull(wanted);
      return true;
    }
    this.#staged.push({ stage: given, endBytes: bytes, takenBytes: 0 });
    this.#fill();
    // Before a pause, this is the last buffer that the socket gets.
    this.#isPaused = this.#free.length === 1;
    return !this.#isPaused;
  }

  /** Copies staged data. */
  #fill(): void {
    const wanted = this.#wanted;
    if (wanted === undefined) return;
    for (let first = this.#staged[0]; first !== undefined; first = this.#staged[0]) {
      const missing = wanted.target.length - wanted.have;
      if (missing === 0) break;
      const end = Math.min(first.endBytes, first.takenBytes + missing);
      wanted.target.set(first.stage.subarray(first.takenBytes, end), wanted.have);
      wanted.have += end - first.takenBytes;
      first.takenBytes = end;
      if (end < first.endBytes) break;
      this.#staged.shift();
      this.#free.push(first.stage);
      this.#resume();
    }
    this.#endIfFull(wanted);
  }

  #resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket?.resume();
  }

  #endIfFull({ target, have, done }: Wanted): void {
    if (have < target.length) return;
    this.#wanted = undefined;
    done();
  }

  #end(failure: Error | undefined): void {
    this.#isOver = true;
    this.#failure ??= failure;
    this.#giveUp();
  }

  #giveUp(): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    wanted?.fail(lostConnection(this.#failure));
  }
}
