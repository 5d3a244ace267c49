/** The stores that a journal's commits refer to: their data is synced before the commit is. */
import { assert, FsyncFlag, prepareFsync, type Reactor, SqeFlag } from "@blksnap/uring";

const LINKED_FILE = SqeFlag.FIXED_FILE | SqeFlag.IO_LINK;

export class StoreSyncs {
  readonly #reactor: Reactor;
  readonly #files: readonly number[];
  /** By the store's place: 1 where the commit being filled tells of it, or the one on its way. */
  readonly #filling: Uint8Array;
  readonly #sealed: Uint8Array;

  constructor(reactor: Reactor, fds: readonly number[]) {
    this.#reactor = reactor;
    this.#files = fds.map((fd) => reactor.addFile(fd));
    this.#filling = new Uint8Array(fds.length);
    this.#sealed = new Uint8Array(fds.length);
  }

  /** All that there are, whether touched or not. */
  get count(): number {
    return this.#files.length;
  }

  /** The commit being filled tells of data that was written there. */
  touch(place: number): void {
    assert(place < this.#files.length, "a commit tells of a store that it does not know");
    this.#filling[place] = 1;
  }

  /** The commit that was being filled is on its way. */
  seal(): void {
    this.#sealed.set(this.#filling);
    this.#filling.fill(0);
  }

  /** Prepares the first part of a sealed commit's chain. Answers how many completions it has. */
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
