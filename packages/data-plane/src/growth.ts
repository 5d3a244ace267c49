/**
 * One moment in which a device has its old size before, and its new one after it.
 *
 * ```
 *   writes held ─▶ none in flight ─▶ a turn of its own: exchange ─▶ writes continue
 *        └── the deadline passes ─▶ writes continue, nothing has changed
 * ```
 */
import { errorText } from "./error-text.js";
import type { GrowReply } from "./messages.js";
import type { Slices } from "./slices.js";
import type { WriteHold } from "./write-hold.js";

export interface Growth {
  readonly slices: Pick<Slices, "run">;
  readonly hold: Pick<WriteHold, "begin" | "release">;
  readonly deadlineMs: number;
  /** False: its caller no longer waits. It changes nothing where it throws. */
  readonly exchange: () => boolean;
  readonly done: (reply: GrowReply) => void;
}

export function growDevice({ slices, hold, deadlineMs, exchange, done }: Growth): void {
  let isOver = false;
  const turn = (): void => {
    if (isOver) return;
    isOver = true;
    let why: string | undefined;
    try {
      if (!exchange()) why = "its caller no longer waits";
    } catch (error) {
      why = errorText(error);
    }
    // What one of the held writes throws is not about the growth.
    try {
      hold.release();
    } finally {
      done({ why });
    }
  };
  // Not within the answer to the last write: what continues is begun from the loop, as after a take.
  const drained = (): void => {
    let turns = 0;
    slices.run(() => {
      turns++;
      if (turns === 1) return true;
      turn();
      return false;
    });
  };
  hold.begin(deadlineMs, drained, () => {
    if (isOver) return;
    isOver = true;
    done({ why: "writes in flight did not end in time" });
  });
}
