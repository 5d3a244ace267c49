/**
 * How long the driver waits, and how often it polls, with the reasons. Users' limits are settings; limits of the
 * packages below are in their files, beside what they bound.
 *
 * ```
 *   _TIMEOUT_MS    then it has failed
 *   _PATIENCE_MS   then others continue without it, and it may still complete
 *   _INTERVAL_MS   between two attempts or polls
 * ```
 */

// ---- media and devices that may not answer ----

/** For a record in the persistent directory: a busy disk or network file system takes seconds. */
export const MEDIUM_ANSWER_TIMEOUT_MS = 20_000;
/** To remove a record that must not be trusted any more. Front writes wait for nothing else meanwhile. */
export const MEDIUM_GIVE_UP_TIMEOUT_MS = 2_500;
/** Between attempts to remove such a record from a medium that fails. */
export const REMOVAL_INTERVAL_MS = 1_000;
/**
 * To close a journal's file, in operations that users wait for. If it is late, it is closed when the medium answers.
 */
export const JOURNAL_CLOSE_TIMEOUT_MS = 10_000;
/** To open a store's path: a network file system that is busy takes seconds. */
export const STORE_OPEN_TIMEOUT_MS = 10_000;
/** To write or remove the mark of a persistent snapshot in a store; a late one is not relied on. */
export const STORE_MARK_TIMEOUT_MS = 10_000;
/** To ask whether a device is in use: opening a device that hangs can hang. */
export const CLAIM_TIMEOUT_MS = 10_000;
/** To read an original's present size: status waits no longer, and reports the last known one. */
export const CAPACITY_PATIENCE_MS = 1_000;
/** To find the holes of an original; holes found later are reported to later clients. */
export const HOLES_TIMEOUT_MS = 30_000;
/** For an NBD client whose connection waits for it. */
export const HOLES_PATIENCE_MS = 2_000;
/** After a failed search, and twice as long after each further one: each that hangs leaves a process behind. */
export const HOLES_PAUSE_MS = 60_000;

// ---- operations ----

/**
 * For a detach, to write back what was written to its front: half of a client's patience, because the front still has to
 * be ended then. What takes longer continues, and the next detach waits for it.
 */
export const FRONT_SYNC_TIMEOUT_MS = 60_000;
/** To write back a node's file system before it is frozen; the freeze writes the rest. */
export const SPLICE_SYNC_TIMEOUT_MS = 30_000;
/**
 * To write back what was written since: after that, an attach fails, and a node that is led back is frozen with the
 * rest. Half of the limit of the exchange, because its freeze writes again what arrives meanwhile.
 */
export const LAST_SYNC_PATIENCE_MS = 10_000;
/** For an exchange of a node's tables that an earlier daemon has begun: longer than one may last. */
export const EXCHANGE_FENCE_TIMEOUT_MS = 30_000;
export const EXCHANGE_FENCE_INTERVAL_MS = 50;
/** Between attempts to resume a node that a refused exchange has left suspended: its users wait. */
export const RESUME_INTERVAL_MS = 1_000;
/** For a daemon that ends, to resume such a node: several attempts, including LVM's lock. */
export const RESUME_PATIENCE_MS = 15_000;
/** Between checks for other users of a front that is to be taken out of its node. */
export const FRONT_POLL_INTERVAL_MS = 200;
/** For other operations on the same device or snapshot: below a client's patience. */
export const OPERATION_TURN_TIMEOUT_MS = 60_000;
/** For a device that is short of slots, while others return some; a device that is late returns none. */
export const GATHER_TIMEOUT_MS = 2_000;
/** In addition to the bound of I/O, for a reactor to report that all I/O of an area has ended. */
export const AREA_DROP_SPARE_MS = 20_000;
/** For a daemon that leaves, while operations run: the next one finishes or undoes them. */
export const LEAVE_PATIENCE_MS = 30_000;
/** For a daemon that ends, while nothing makes progress: the next one finds what is left. */
export const END_STALL_PATIENCE_MS = 30_000;
export const END_INTERVAL_MS = 250;
/** For a store's growth to end, and for its last bytes to reach the disk; otherwise it is not sealed. */
export const STORE_SEAL_PATIENCE_MS = 5_000;
/** For a daemon that is about to leave its state directory: users of its fronts notice each interval. */
export const STATE_CLAIM_INTERVAL_MS = 20;
/**
 * The longest possible timer, some 24 days: for requests whose descriptors must stay open as long as the reactor uses
 * them.
 */
export const NO_LIMIT_MS: number = 2 ** 31 - 1;

/** Between checks of a node that is to be tracked again, but whose snapshot has to be destroyed first. */
export const FOLLOW_INTERVAL_MS = 1_000;
/** Between two times that a node is tracked again: its users are stopped each time. */
export const FOLLOW_SPACING_MS = 60_000;
/** Before attaching a node during whose attach a daemon has ended, and six times that after two: others go first. */
export const FOLLOW_AFTER_END_MS = 10_000;

// ---- writes without room for their old data ----

/**
 * Until the image is given up, if the snapshot sets no limit. Together with the preceding time of a growth, this is
 * well below the 120 s after which the kernel reports a waiting program as hung.
 */
export const BLOCKED_WRITES_TIMEOUT_MS = 30_000;
/** How often blocked writes retry; more often if the time limit is short. */
export const BLOCKED_WRITES_INTERVAL_MS = 1_000;

// ---- recovery: users of fronts wait ----

/**
 * For all fronts to serve, before stores are opened and journals made: both take this thread's time, and a program that
 * is started for them may lie on one of the fronts. A front that waits for the kernel delays them no longer than this.
 */
export const FRONTS_HEAD_START_MS = 5_000;
/** The same for a front that is restored after a reboot, before the next one. */
export const RESTORED_HEAD_START_MS = 5_000;
/** For the medium or the original of such a front; after that, it is attached by hand. */
export const RESTORED_PATIENCE_MS = 60_000;
/** For writes that need copies, while stores do not answer; after that, the snapshot is lost. */
export const STORES_PATIENCE_MS = 20_000;
/** For writes that need copies, while an area's journal is renewed; after that, the snapshot ends with the power. */
export const JOURNAL_RENEWAL_PATIENCE_MS = 20_000;
/**
 * To remove what a lost snapshot has left on a medium. Short, because its writes wait, and waiting longer gains
 * nothing: what stays there is logged, and its removal retried.
 */
export const FORGETTING_PATIENCE_MS = 5_000;
/** To remove the seals of the stores from a snapshot's record; after that, it ends with the machine's power. */
export const UNSEALING_PATIENCE_MS = 5_000;
/** For all disks and file systems that arrive after the daemon: a mount at boot gives up after 90 s. */
export const ARRIVAL_PATIENCE_MS = 30_000;
export const ARRIVAL_INTERVAL_MS = 200;
/** Between two attempts to serve a front whose original was away. */
export const LATE_RECOVERY_INTERVAL_MS = 5_000;
/** For one such attempt. Short, because others of this device and its users wait, and it is repeated. */
export const LATE_RECOVERY_PATIENCE_MS = 1_000;
/** Between checks whether a dead server's last requests have released a device or store: users notice each interval. */
export const FENCE_INTERVAL_MS = 10;

// ---- polls ----

/** How often the progress of a long create is logged. */
export const FILL_LOG_INTERVAL_MS = 1_000;
/** How often a front that was written is checked for another mount: a power cut can cost the proof of this time. */
export const MOUNT_POLL_INTERVAL_MS = 5_000;
/** How often nodes that lead to fronts are checked: how long an image that misses writes can continue. */
export const SPLICE_POLL_INTERVAL_MS = 1_000;
/** How often originals are checked for growth: one counts as grown when two checks in a row find it larger. */
export const GROWTH_POLL_INTERVAL_MS = 1_000;
/** How long an attempt to have a front grow holds writes, at most: unlike a take, no caller waits for it. */
export const GROWTH_HOLD_LIMIT_MS = 1_000;
/** Longest pause between two attempts to have a front grow. */
export const GROWTH_SPACING_MS = 60_000;
