import type { Socket } from "node:net";
import { NbdError } from "./errors.js";
import { tlsReason } from "./tls-files.js";

/** Most bytes of one read of the socket. */
const PART_BYTES = 65_536;

export interface ByteReader {
  /** @throws NbdError CONNECTION_LOST */
  read(bytes: number): Promise<Buffer>;
  /** Fills `target`. @throws NbdError CONNECTION_LOST */
  readInto(target: Uint8Array): Promise<void>;
}

/** @param failure of the socket; undefined: it was closed */
export function lostConnection(failure: Error | undefined): NbdError {
  if (failure instanceof NbdError) return failure;
  const closed = "the other side has closed the connection";
  const why = failure === undefined ? closed : tlsReason(failure);
  return new NbdError("CONNECTION_LOST", why, 0, failure);
}

/** Reads the requested number of bytes from a socket; the rest stays in the kernel. */
export class SocketReader implements ByteReader {
  readonly #socket: Socket;
  #failure: Error | undefined;
  #isOver = false;
  #wake: () => void = () => undefined;
  readonly #onReadable = (): void => this.#wake();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("readable", this.#onReadable);
    socket.on("error", (error) => this.#end(error));
    socket.on("end", () => this.#end(undefined));
    socket.on("close", () => this.#end(undefined));
  }

  /** Stops reading: another reader takes over the socket. */
  release(): void {
    this.#socket.off("readable", this.#onReadable);
  }

  #end(failure: Error | undefined): void {
    this.#isOver = true;
    this.#failure ??= failure;
    this.#wake();
  }

  /** @throws NbdError CONNECTION_LOST */
  async read(bytes: number): Promise<Buffer> {
    const all = Buffer.allocUnsafe(bytes);
    await this.readInto(all);
    return all;
  }

  /** Fills `target`. @throws NbdError CONNECTION_LOST */
  async readInto(target: Uint8Array): Promise<void> {
    for (let have = 0; have < target.length; ) {
      const part = this.#socket.read(Math.min(target.length - have, PART_BYTES)) as Buffer | null;
      if (part !== null) {
        target.set(part, have);
        have += part.length;
        continue;
      }
      if (this.#isOver) throw lostConnection(this.#failure);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
