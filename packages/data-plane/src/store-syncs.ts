/** Syncs the stores that a journal's commits refer to: their data before the commit. */
import { assert, FsyncFlag, prepareFsync, type Reactor, SqeFlag } from "@blksnap/uring";

const LINKED_FILE = SqeFlag.FIXED_FILE | SqeFlag.IO_LINK;

export class StoreSyncs {
  readonly #reactor: Reactor;
  readonly #files: readonly number[];
  /** By store: 1 if the commit being filled refers to it; the same for the commit in flight. */
  readonly #filling: Uint8Array;
  readonly #sealed: Uint8Array;

  constructor(reactor: Reactor, fds: readonly number[]) {
    this.#reactor = reactor;
    this.#files = fds.map((fd) => reactor.addFile(fd));
    this.#filling = new Uint8Array(fds.length);
    this.#sealed = new Uint8Array(fds.length);
  }

  /** The number of stores, touched or not. */
  get count(): number {
    return this.#files.length;
  }

  /** The commit being filled refers to data written to this store. */
  touch(place: number): void {
    assert(place < this.#files.length, "a commit names an unknown store");
    this.#filling[place] = 1;
  }

  /** The commit being filled is now in flight. */
  seal(): void {
    this.#sealed.set(this.#filling);
    this.#filling.fill(0);
  }

  /** Prepares the first part of a sealed commit's chain. Returns how many completions it has. */
  prepare(firstData: number, handler: number): number {
    let completions = 0;
    for (let place = 0; place < this.#files.length; place++) {
      if (this.#sealed[place] === 0) continue;
      const { ring } = this.#reactor;
      const data = firstData + place;
      prepareFsync(ring, this.#files[place], FsyncFlag.DATASYNC, data, handler, LINKED_FILE);
      completions++;
    }
    return completions;
  }

  /** Nothing of it is in flight. */
  close(): void {
    for (const index of this.#files) this.#reactor.removeFile(index);
  }
}
