/** A kernel that is short of memory, on one that is not. */
import { prepareNop, Reactor } from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";

/** Has the kernel take so many entries at a time, as if it had no memory for more. */
export function takeAtMost(count: number): () => void {
  const { enter } = native;
  native.enter = (fd, toSubmit, minComplete, flags) =>
    enter(fd, Math.min(toSubmit, count), toSubmit > count ? 0 : minComplete, flags);
  return () => {
    native.enter = enter;
  };
}

/** No pause takes longer than a turn. */
export function passTime(reactor: Reactor, onPause: () => void): void {
  const { addHandler } = Reactor.prototype;
  const pauses: (() => void)[] = [];
  const handler = addHandler.call(reactor, { onCompletion: () => pauses.shift()?.() });
  reactor.setTimer = (_, callback) => {
    onPause();
    pauses.push(callback);
    prepareNop(reactor.ring, 0, handler, 0);
    return undefined as never;
  };
}
