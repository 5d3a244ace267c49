import { closeSync } from "node:fs";
import type { Reactor } from "@blksnap/uring";
import { openBackingFile } from "../backing-file.js";
import { FileIo, type FileIoOwner } from "../file-io.js";
import type { RequestQueue, Target, TargetModule, TargetSpec } from "../target.js";

interface FileOptions {
  /** A block device or a regular file. */
  readonly path: string;
  readonly readOnly?: boolean;
}

/** A device that passes everything on to a block device or regular file, past the page cache. */
export function fileTarget(options: FileOptions): TargetSpec {
  return { module: new URL(import.meta.url), options };
}

/** Passes a queue's requests on to one open file. */
export class FileTarget implements Target, FileIoOwner {
  readonly #queue: RequestQueue;
  readonly #io: FileIo;
  readonly #fd: number;

  /** @param fd belongs to the target once this has not thrown */
  constructor(reactor: Reactor, queue: RequestQueue, fd: number, isBlock: boolean) {
    this.#queue = queue;
    this.#fd = fd;
    this.#io = new FileIo(reactor, queue, fd, isBlock, this);
  }

  queueIo(tag: number): void {
    this.#io.submit(tag);
  }

  onFileIo(tag: number, result: number): void {
    this.#queue.complete(tag, result);
  }

  close(): void {
    this.#io.close();
    closeSync(this.#fd);
  }
}

export const target: TargetModule = {
  isPassThrough: true,
  describe(options) {
    const backing = openBackingFile((options as FileOptions).path, options as FileOptions);
    closeSync(backing.fd);
    return backing.params;
  },
  open(options, queue, reactor) {
    const backing = openBackingFile((options as FileOptions).path, options as FileOptions);
    try {
      return new FileTarget(reactor, queue, backing.fd, backing.kind === "block");
    } catch (error) {
      closeSync(backing.fd);
      throw error;
    }
  },
};
