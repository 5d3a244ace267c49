/**
 * For how long the driver waits, and how often it looks, with the reason for each. What users set is a
 * setting; what a package below waits for stands there, beside what it bounds.
 *
 * ```
 *   _TIMEOUT_MS    then it has failed
 *   _PATIENCE_MS   then others continue without it, and it may still end
 *   _INTERVAL_MS   between two looks
 * ```
 */

// ---- media and devices that may not answer ----

/** For what is to be on record in the persistent directory: a busy disk or network file system takes seconds. */
export const MEDIUM_ANSWER_TIMEOUT_MS = 20_000;
/** To remove a record that must not be believed any more. Front writes wait for nothing else meanwhile. */
export const MEDIUM_GIVE_UP_TIMEOUT_MS = 2_500;
/** From one attempt to remove such a record to the next, where the medium fails. */
export const REMOVAL_INTERVAL_MS = 1_000;
/** For a journal's file to be closed, by operations that users wait for. It is closed when it answers. */
export const JOURNAL_CLOSE_TIMEOUT_MS = 10_000;
/** For a store's path to be opened: a network file system that is busy takes seconds. */
export const STORE_OPEN_TIMEOUT_MS = 10_000;
/** For a store to take or lose the mark of a persistent snapshot; what comes later is not relied on. */
export const STORE_MARK_TIMEOUT_MS = 10_000;
/** For asking whether a device is in use: opening one that hangs can hang. */
export const CLAIM_TIMEOUT_MS = 10_000;
/** For the holes of an original to be found; clients that come later are told of them. */
export const HOLES_TIMEOUT_MS = 30_000;
/** Of an NBD client that waits for its connection meanwhile. */
export const HOLES_PATIENCE_MS = 2_000;
/** From one look that failed to the next, and each time twice as long: one that hangs leaves a process behind. */
export const HOLES_PAUSE_MS = 60_000;

// ---- operations ----

/** For a node's file system to be written back before it is frozen; the freeze writes the rest. */
export const SPLICE_SYNC_TIMEOUT_MS = 30_000;
/**
 * For what was written since that: then a node is not attached, and one that is led back is frozen with what is left.
 * Half of what the exchange may take, as its freeze writes again what comes meanwhile.
 */
export const LAST_SYNC_PATIENCE_MS = 10_000;
/** For the exchange of a node's tables that an earlier daemon has begun: more than one may last. */
export const EXCHANGE_FENCE_TIMEOUT_MS = 30_000;
export const EXCHANGE_FENCE_INTERVAL_MS = 50;
/** Between attempts to resume a node that a refused exchange has left suspended: its users wait. */
export const RESUME_INTERVAL_MS = 1_000;
/** Of a daemon that ends, for such a node: several attempts, LVM's lock included. */
export const RESUME_PATIENCE_MS = 15_000;
/** Between looks at who else has a front open that is to be taken out of its node. */
export const FRONT_LOOK_INTERVAL_MS = 200;
/** For others on the same device or snapshot: below a client's patience. */
export const OPERATION_TURN_TIMEOUT_MS = 60_000;
/** Of a device that is short of slots, for those that the others give back; one that is late gives none. */
export const GATHER_TIMEOUT_MS = 2_000;
/** Besides the bound of I/O, for a reactor to tell that all I/O of an area has ended. */
export const AREA_DROP_SPARE_MS = 20_000;
/** Of a daemon that leaves, for operations that run: the next one finishes or undoes them. */
export const LEAVE_PATIENCE_MS = 30_000;
/** Of a daemon that ends, while nothing makes progress: the next one finds what is left. */
export const END_STALL_PATIENCE_MS = 30_000;
export const END_INTERVAL_MS = 250;
/** For a store's growth to end, and for its last bytes to be on disk: then what others write to it is not seen. */
export const STORE_SEAL_PATIENCE_MS = 5_000;
/** For a daemon that is about to leave its state directory: users of its fronts feel each of these. */
export const STATE_CLAIM_INTERVAL_MS = 20;
/**
 * The longest that a timer takes, some 24 days: for requests whose descriptors must stay open for as long
 * as the reactor uses them.
 */
export const NO_LIMIT_MS: number = 2 ** 31 - 1;

/** Between looks at a node that could be tracked again: at a snapshot that is to be destroyed first. */
export const FOLLOW_INTERVAL_MS = 1_000;
/** From one time that a node was tracked again to the next: its users stand still each time. */
export const FOLLOW_SPACING_MS = 60_000;
/** Before a node is attached with which a daemon has ended, and six times that after two: others are served meanwhile. */
export const FOLLOW_AFTER_END_MS = 10_000;

// ---- writes without room for their old data ----

/**
 * Until the image is given up, where the snapshot's maker sets no limit. With the time that a growth may
 * take before it well below the 120 s after which the kernel calls a waiting program hung.
 */
export const BLOCKED_WRITES_TIMEOUT_MS = 30_000;
/** How often blocked writes try again; more often where the time limit is short. */
export const BLOCKED_WRITES_INTERVAL_MS = 1_000;

// ---- recovery: users of fronts wait ----

/**
 * Stores are opened, and journals made, when all fronts serve: both take this thread's time, and a program
 * that is started for them may lie on one of the fronts. One that waits for the kernel delays them no longer.
 */
export const FRONTS_HEAD_START_MS = 5_000;
/** The same for one that comes back after a reboot, before the next one. */
export const RESTORED_HEAD_START_MS = 5_000;
/** For such a one, its medium or its original: then it is attached by hand. */
export const RESTORED_PATIENCE_MS = 60_000;
/** Of writes that need copies, for stores that do not answer: then the snapshot is lost. */
export const STORES_PATIENCE_MS = 20_000;
/** Of writes that need copies, for an area's journal to be made anew: then the snapshot ends with the power. */
export const JOURNAL_RENEWAL_PATIENCE_MS = 20_000;
/**
 * For what a lost snapshot has left on a medium to be removed. Short, as its writes wait, and nothing is
 * gained by more: what stays there is told, and tried on.
 */
export const FORGETTING_PATIENCE_MS = 5_000;
/** For a snapshot's record to say no more how its stores were left: then it ends with the machine's power. */
export const UNSEALING_PATIENCE_MS = 5_000;
/** For all disks and file systems together that come after the daemon: a mount at boot gives up after 90 s. */
export const ARRIVAL_PATIENCE_MS = 30_000;
export const ARRIVAL_INTERVAL_MS = 200;
/** Between two attempts to serve a front whose original was away. */
export const LATE_RECOVERY_INTERVAL_MS = 5_000;
/** Of one attempt. Short, because others of this device and its users wait, and it is tried again. */
export const LATE_RECOVERY_PATIENCE_MS = 1_000;
/** For a dead server's last requests to let go of a device or a store: its users feel each of these. */
export const FENCE_INTERVAL_MS = 10;

// ---- looks ----

/** How often progress of a long create is logged. */
export const FILL_LOG_INTERVAL_MS = 1_000;
/** How often a front that was written to is looked at for another mount: how much of a proof a cut can cost. */
export const MOUNT_LOOK_INTERVAL_MS = 5_000;
/** How often nodes that lead to fronts are looked at: how long an image can continue that misses writes. */
export const SPLICE_LOOK_INTERVAL_MS = 1_000;
