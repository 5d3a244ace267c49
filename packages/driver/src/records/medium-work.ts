/** Work on the medium in flight for one record. Nothing else begins with the record until it has ended. */
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

  /** The medium has not answered all of it. */
  get isUnderWay(): boolean {
    return this.#count > 0;
  }

  /** What the medium does not answer in time continues. @throws Error of `onLate` then; else as the work does */
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
