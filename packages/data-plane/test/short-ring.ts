/** Simulates a kernel that is short of memory. */
import { prepareNop, Reactor } from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";

/** Makes the kernel accept so many entries at a time, as if it had no memory for more. */
export function takeAtMost(count: number): () => void {
  const { enter } = native;
  native.enter = (fd, toSubmit, minComplete, flags) =>
    enter(fd, Math.min(toSubmit, count), toSubmit > count ? 0 : minComplete, flags);
  return () => {
    native.enter = enter;
  };
}

/** Ends each pause after one turn. */
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
