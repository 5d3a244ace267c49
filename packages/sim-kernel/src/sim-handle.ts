/** A FileHandle of `node:fs/promises` on the simulated machine. */
import type { BigIntStats, Stats } from "node:fs";
import type { SimMachine } from "./machine.js";
import { bigStatusOf, statusOf } from "./status.js";

export class SimHandle {
  readonly #machine: SimMachine;
  #fd: number;

  constructor(machine: SimMachine, fd: number) {
    this.#machine = machine;
    this.#fd = fd;
  }

  /** -1 when it is closed. */
  get fd(): number {
    return this.#fd;
  }

  async read(
    bytes: Uint8Array,
    offset = 0,
    length: number = bytes.length - offset,
    position: number | null = null,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }> {
    const into = bytes.subarray(offset, offset + length);
    const files = this.#machine.files;
    const bytesRead = await files.transfer(this.#fd, "read", into, position, "read");
    return { bytesRead, buffer: bytes };
  }

  /** As in node: bytes with offset, length and position, or a text with its position. */
  async write(
    data: Uint8Array | string,
    offset: number | null = null,
    length?: number,
    position: number | null = null,
  ): Promise<{ bytesWritten: number; buffer: Uint8Array | string }> {
    const isText = typeof data === "string";
    const bytes = isText ? Buffer.from(data) : data;
    const start = isText ? 0 : (offset ?? 0);
    const from = bytes.subarray(start, isText || length === undefined ? undefined : start + length);
    const at = isText ? offset : position;
    const bytesWritten = await this.#machine.files.transfer(this.#fd, "write", from, at, "write");
    return { bytesWritten, buffer: data };
  }

  async writeFile(data: string | Uint8Array): Promise<void> {
    await this.write(typeof data === "string" ? Buffer.from(data) : data);
  }

  async readFile(options?: BufferEncoding | { encoding?: BufferEncoding }): Promise<unknown> {
    const { size } = (await this.stat()) as Stats;
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await this.read(bytes, 0, size, 0);
    const encoding = typeof options === "string" ? options : options?.encoding;
    const read = bytes.subarray(0, bytesRead);
    return encoding === undefined ? read : read.toString(encoding);
  }

  async sync(): Promise<void> {
    await this.#machine.files.transfer(this.#fd, "sync", undefined, 0, "fsync");
  }

  async datasync(): Promise<void> {
    await this.#machine.files.transfer(this.#fd, "sync", undefined, 0, "fdatasync");
  }

  stat(options?: { bigint?: boolean }): Promise<Stats | BigIntStats> {
    const { node } = this.#machine.process.file(this.#fd, "fstat");
    return this.#machine.later(() => (options?.bigint ? bigStatusOf(node) : statusOf(node)));
  }

  truncate(lengthBytes = 0): Promise<void> {
    return this.#machine.later(() => this.#machine.files.truncate(this.#fd, lengthBytes));
  }

  async close(): Promise<void> {
    const fd = this.#fd;
    if (fd < 0) return;
    this.#fd = -1;
    await this.#machine.later(() => this.#machine.files.close(fd));
  }
}
