/** Exit statuses of a daemon, for the process that starts the next one. */
export const ExitStatus = {
  /** Ended as requested: start no other. */
  ENDED: 0,
  FAILED: 1,
  USAGE: 2,
  /** Ended as requested, but something hangs and was left to the next one, which must not start now. */
  LEFT: 3,
  /** A reactor has died: start the daemon again and it continues. */
  REACTOR_LOST: 70,
  /** Left to a successor, for an upgrade: start it now. */
  HANDED_OVER: 75,
} as const;
