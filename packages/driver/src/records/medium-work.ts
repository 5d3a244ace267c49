/** Work on the medium in flight for one record. Nothing else begins with that record until it has ended. */
import { bounded } from "@blksnap/uring";
import { noAnswer, type PersistentDirectory } from "./persistent-directory.js";

export class MediumWork {
  readonly #directory: Pick<PersistentDirectory, "unanswered" | "answerTimeoutMs">;
  readonly #uuid: string;
  #count = 0;

  constructor(
    directory: Pick<PersistentDirectory, "unanswered" | "answerTimeoutMs">,
    uuid: string,
  ) {
    this.#directory = directory;
    this.#uuid = uuid;
  }

  /** True while the medium has not answered everything. */
  get isUnderWay(): boolean {
    return this.#count > 0;
  }

  /**
   * Waits within a time limit; late work continues.
   * @throws the error of `onLate` after the limit; else as the work does
   */
  inTime<Value>(
    work: Promise<Value>,
    timeoutMs: number = this.#directory.answerTimeoutMs,
    onLate: () => Error = noAnswer,
  ): Promise<Value> {
    const { unanswered } = this.#directory;
    unanswered.add(this.#uuid);
    this.#count++;
    const ended = work.finally(() => {
      if (--this.#count === 0) unanswered.delete(this.#uuid);
    });
    ended.catch(() => undefined);
    return bounded(ended, timeoutMs, onLate);
  }
}
