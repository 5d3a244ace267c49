/** How a daemon's process ends, for what starts the next one. */
export const ExitStatus = {
  /** As asked: no next one is wanted. */
  ENDED: 0,
  FAILED: 1,
  USAGE: 2,
  /** As asked, but something hangs and was left to the next one, which is not wanted now. */
  LEFT: 3,
  /** A reactor has ended by itself: start the daemon again and it continues. */
  REACTOR_LOST: 70,
  /** Left to a successor, for an upgrade: start it now. */
  HANDED_OVER: 75,
} as const;
