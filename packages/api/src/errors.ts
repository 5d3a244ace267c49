/**
 * The error catalogue: every failure of an operation has a stable name, the errno of the kernel module for that case
 * (or the nearest one), the HTTP status of the response, the exit status of `blksnapctl`, and a line that says what
 * to do.
 */

export interface ErrorEntry {
  /** Positive Linux errno; null where none fits. */
  readonly errno: number | null;
  readonly errno_name: string | null;
  readonly http_status: number;
  /** 1: the operation failed. 2: the request was wrong. */
  readonly exit_status: 1 | 2;
  readonly hint: string;
}

const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EIO: 5,
  E2BIG: 7,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENOSYS: 38,
  ELOOP: 40,
  ENODATA: 61,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ECONNRESET: 104,
  ESHUTDOWN: 108,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EALREADY: 114,
  ESTALE: 116,
  ECANCELED: 125,
} as const;

type ErrnoName = keyof typeof ERRNO;

function failed(name: ErrnoName | null, httpStatus: number, hint: string): ErrorEntry {
  const errno = name === null ? null : ERRNO[name];
  return { errno, errno_name: name, http_status: httpStatus, exit_status: 1, hint };
}

function misused(name: ErrnoName, httpStatus: number, hint: string): ErrorEntry {
  return { ...failed(name, httpStatus, hint), exit_status: 2 };
}

const requestErrors = {
  REQUEST_INVALID: misused("EINVAL", 400, "Compare the request with /v1/openapi.json"),
  REQUEST_TOO_LARGE: misused("E2BIG", 413, "Split the request; a body is limited to 1 MiB"),
  REQUEST_TOO_SLOW: misused("ETIMEDOUT", 408, "Send the whole request without delay"),
  MEDIA_TYPE_UNSUPPORTED: misused("EINVAL", 415, "Send bodies as application/json"),
  ROUTE_NOT_FOUND: misused("ENOSYS", 404, "See /v1/openapi.json for what the daemon knows"),
  METHOD_NOT_ALLOWED: misused(
    "EOPNOTSUPP",
    405,
    "Use a method from the Allow header of the response",
  ),
  ID_INVALID: misused("EINVAL", 400, "Give the uuid that snapshot_create printed"),
  LIMIT_INVALID: misused("EINVAL", 400, "Give a size of at least 512 bytes, such as 2G"),
  INTERNAL: failed(null, 500, "See the daemon's log; please report it"),
  STARTING: failed("EAGAIN", 503, "Try again in a moment; the daemon recovers its devices"),
  SHUTTING_DOWN: failed("ESHUTDOWN", 503, "The daemon is stopping; start it again"),
} as const;

const daemonErrors = {
  DAEMON_IN_USE: failed("EBUSY", 409, "Unmount or close them first, or stop with --keep"),
  UPGRADE_FAILED: failed("EAGAIN", 500, "The old daemon continues; see its log and try again"),
  REACTOR_FULL: failed("EMFILE", 503, "Raise its LimitNOFILE, or start it with more --reactors"),
  UPGRADE_UNATTENDED: failed("EOPNOTSUPP", 409, "Start it as blksnapd --supervise, or by systemd"),
} as const;

const nbdErrors = {
  NBD_NOT_SECURE: misused(
    "EPERM",
    400,
    "Give --tls-certs DIR; --insecure is only for loopback (127.0.0.1)",
  ),
  NBD_CERTIFICATES_UNUSABLE: failed(
    "EINVAL",
    400,
    "Give a folder with ca-cert.pem, server-cert.pem, server-key.pem",
  ),
  NBD_LISTEN_FAILED: failed(
    "EIO",
    409,
    "Give a free port here; under systemd enable blksnapd-nbd-tcp.socket",
  ),
  NBD_LISTENER_NOT_FOUND: failed("ENOENT", 404, "See blksnapctl nbd list"),
} as const;

const deviceErrors = {
  DEVICE_NOT_FOUND: failed("ENOENT", 404, "Check the name with lsblk"),
  DEVICE_NOT_BLOCK: failed("ENOTBLK", 400, "Give a block device or a regular image file"),
  DEVICE_NOT_PERMITTED: failed("EACCES", 403, "Run the daemon as root"),
  DEVICE_BUSY: failed("EBUSY", 409, "Unmount it or stop what uses it, then attach again"),
  DEVICE_READ_ONLY: failed("EROFS", 409, "Make it writable with blockdev --setrw, or remount"),
  DEVICE_ZONED: failed("EOPNOTSUPP", 400, "Give a disk without zones, or a dm-zoned device on it"),
  DEVICE_TOO_SMALL: failed("EINVAL", 400, "Give a device of at least 256 KiB"),
  DEVICE_TOO_LARGE: failed("EFBIG", 400, "Track its partitions or volumes; 8 PiB is the limit"),
  TRACKER_NOT_PERSISTENT: failed(
    "EINVAL",
    409,
    "Detach the device, and attach it with --persistent",
  ),
  STORE_NOT_PERSISTENT: misused("EINVAL", 400, "Give stores on a disk, not in memory"),
  PERSISTENT_STATE_UNUSABLE: failed(
    "EIO",
    500,
    "Give the daemon a --persistent-dir that can be written",
  ),
  PERSISTENT_STATE_ON_DEVICE: failed(
    "EBUSY",
    409,
    "Put --persistent-dir on a disk that is not tracked",
  ),
  DEVICE_IS_OURS: failed("ELOOP", 409, "Give the original, not a front or an image of blksnap"),
  DEVICE_OVERLAPS: failed("EBUSY", 409, "Track a disk or what lies on it, not both"),
  DEVICE_FAILED: failed("EIO", 500, "Check dmesg for errors of the device"),
  LIVE_UNSUPPORTED: failed(
    "EOPNOTSUPP",
    409,
    "Unmount it, attach it with --front and mount that front",
  ),
  SPLICE_FAILED: failed("EIO", 500, "Its users continue as before; see dmesg and the daemon's log"),
  SPLICE_LOST: failed("ESTALE", 409, "Detach it, attach it again and make a full backup"),
  NOT_ATTACHED: failed("ENOENT", 404, "Attach it first: blksnapctl attach --device DEVICE"),
  FRONT_IN_USE: failed("EBUSY", 409, "Unmount the front first; fuser -vm shows who uses it"),
  FRONT_ENDED: failed("ENODEV", 409, "Detach the device, and attach it again"),
  DEVICE_IN_SNAPSHOT: failed("EBUSY", 409, "Destroy the snapshot first; status shows its id"),
  UBLK_UNAVAILABLE: failed(
    "ENODEV",
    503,
    "Load it: modprobe ublk_drv; or run blksnapd --frontend nbd without it",
  ),
  FRONTEND_DIFFERS: failed(
    "EINVAL",
    409,
    "Start it as before, and detach the devices; then change it",
  ),
  UBLK_FAILED: failed("EIO", 500, "See dmesg and the daemon's log"),
  NO_ANSWER: failed("ETIMEDOUT", 504, "A device hangs: see dmesg, status and the daemon's log"),
  OUT_OF_MEMORY: failed("ENOMEM", 503, "Free memory: /run for maps, ulimit -l for locked memory"),
} as const;

const snapshotErrors = {
  SNAPSHOT_NOT_FOUND: failed("ESRCH", 404, "List the snapshots with blksnapctl snapshot_collect"),
  SNAPSHOT_EMPTY: failed("ENODEV", 409, "Add a device first: blksnapctl snapshot_add"),
  SNAPSHOT_ALREADY_TAKEN: failed("EALREADY", 409, "Create another snapshot for another instant"),
  SNAPSHOT_CORRUPTED: failed("EFAULT", 409, "Destroy it and take another with a larger limit"),
  SNAPSHOT_BUSY: failed("EBUSY", 409, "Wait until the running operation on it has ended"),
  TOO_MANY_READERS: failed("EMFILE", 409, "Use fewer reader names, or end readers that wait"),
  CHUNK_OVER_SLOT: failed("EINVAL", 409, "Include this device when you create the snapshot"),
  DEVICE_CAPACITY_CHANGED: failed("EFAULT", 409, "Detach the device and attach it again"),
  DEVICE_ALREADY_IN_SNAPSHOT: failed("EALREADY", 409, "Nothing to do; it is already a member"),
  DEVICE_IN_OTHER_SNAPSHOT: failed(
    "EBUSY",
    409,
    "Wait for its end, or destroy it if nothing needs it; see status",
  ),
  FREEZE_TIMEOUT: failed("ETIMEDOUT", 409, "Try again when the file system is less busy"),
  FREEZE_FAILED: failed("EIO", 409, "Check the file system; see the daemon's log"),
  HOOK_FAILED: failed(
    "ECANCELED",
    500,
    "Nothing was taken; repair the hook or its cause, or remove it",
  ),
  TAKE_FAILED: failed("EIO", 500, "Nothing was taken; see the daemon's log and try again"),
  STORE_NOT_FOUND: failed("ENOENT", 404, "Create the file or directory, or name another"),
  STORE_INVALID: failed("EINVAL", 400, "Give a regular file, a directory or a block device"),
  STORE_NOT_PERMITTED: failed("EACCES", 403, "Give a store that the daemon may write"),
  STORE_BUSY: failed("EBUSY", 409, "Unmount it or name another store"),
  STORE_ON_DEVICE: failed("EBUSY", 409, "Put the store on a disk that is not tracked"),
  STORE_FULL: failed("ENOSPC", 507, "Free space there, lower --limit or name another store"),
  STORE_FAILED: failed("EIO", 500, "Check dmesg for errors of the store, or name another"),
} as const;

const cbtErrors = {
  CBT_RANGE: failed("ENODATA", 416, "Stay below the block_count that cbtinfo shows"),
  CBT_CORRUPTED: failed("EFAULT", 409, "Make a full backup; the next take starts a generation"),
  CBT_NUMBER_UNKNOWN: failed("EINVAL", 400, "Give a number up to cbtinfo's changes_number"),
  CBT_BUSY: failed("EBUSY", 409, "Try again when fewer snapshots are taken"),
  CBT_NUMBER_CHANGED: failed("ESTALE", 409, "Start over; another snapshot has been taken since"),
  CBT_GENERATION_CHANGED: failed("ESTALE", 409, "Make a full backup; cbtinfo --json says why"),
  MARK_RANGE: failed("EINVAL", 400, "Stay within the device; ranges count sectors of 512 bytes"),
  FILE_NOT_FOUND: failed("ENOENT", 404, "Check the file's name"),
  FILE_NOT_MAPPABLE: failed("EOPNOTSUPP", 400, "Give a regular file on a tracked file system"),
  FILE_NOT_ALIGNED: failed("EINVAL", 400, "The file's extents must start and end at sectors"),
} as const;

/** Raised by the client or the command line, not sent by the daemon. */
const localErrors = {
  DAEMON_NOT_RUNNING: failed(
    "ECONNREFUSED",
    503,
    "Start it: systemctl start blksnapd; or blksnapd [--frontend nbd]",
  ),
  SOCKET_NOT_PERMITTED: failed("EACCES", 403, "Run as root or join the group blksnap"),
  SOCKET_FAILED: failed("EIO", 500, "Check the socket's path; --socket names another"),
  CONNECTION_LOST: failed("ECONNRESET", 503, "Check whether the daemon still runs, and its log"),
  TIMEOUT: failed(
    "ETIMEDOUT",
    504,
    "The daemon may still finish it: see blksnapctl status, and its log",
  ),
  RESPONSE_INVALID: failed("EPROTO", 502, "Use the same version of client and daemon"),
  ABORTED: failed("ECANCELED", 499, "The request was cancelled before its response came"),
  ALREADY_RUNNING: failed(
    "EADDRINUSE",
    409,
    "Stop it first, or give this one its own --state-dir and --socket",
  ),
  CONFIG_CHECK_FAILED: failed("EIO", 500, "Install blksnapd beside blksnapctl, or into the PATH"),
  MOUNT_FAILED: failed("EINVAL", 500, "Nothing was mounted or unmounted; see dmesg"),
  FILES_NOT_NAMED: failed(
    "EOPNOTSUPP",
    500,
    "Run as root, with e2fsprogs and util-linux installed",
  ),
  DOCTOR_FAILED: failed("EIO", 500, "Install blksnapd beside blksnapctl, or into the PATH"),
  USAGE: misused("EINVAL", 400, "See blksnapctl --help"),
  OUTPUT_FAILED: failed("EIO", 500, "Check the file's path and its free space"),
} as const;

/** Of export, restore and maintenance of backups; raised outside the daemon. */
const backupErrors = {
  BACKUP_NOT_FOUND: failed("ENOENT", 404, "List the points: blksnapctl list --from DIR"),
  BACKUP_BUSY: failed("EBUSY", 409, "Wait until the other command has ended"),
  BACKUP_DAMAGED: failed("EIO", 500, "Restore another point; blksnapctl verify names all damage"),
  BACKUP_INCOMPLETE: failed("ENODATA", 500, "Send the stream again to complete the target"),
  BACKUP_VERSION: failed(
    "EOPNOTSUPP",
    400,
    "Use the version of blksnapctl that wrote it, or newer",
  ),
  BACKUP_CHAIN_BROKEN: failed("ESTALE", 409, "Export in full: omit --since, or use --auto"),
  TARGET_FULL: failed("ENOSPC", 507, "Free space there; what was already written is reused"),
  TARGET_FAILED: failed("EIO", 500, "Check the target's path and rights, and dmesg for its disk"),
  TARGET_TOO_SMALL: failed("ENOSPC", 400, "Give a target that is as large as the device"),
  TARGET_ON_DEVICE: failed("EBUSY", 409, "Give a target on another disk"),
  TARGET_IN_USE: failed("EBUSY", 409, "Unmount the target, or stop what uses it"),
  TARGET_EXISTS: failed("EEXIST", 409, "Name another target, or remove this one"),
  IMAGE_FAILED: failed("EIO", 500, "Export again; see dmesg and the daemon's log"),
} as const;

const catalogue = {
  ...requestErrors,
  ...daemonErrors,
  ...nbdErrors,
  ...deviceErrors,
  ...snapshotErrors,
  ...cbtErrors,
  ...localErrors,
  ...backupErrors,
} as const;

/** A stable name of an error. */
export type ErrorName = keyof typeof catalogue;

/** Every error by its name. */
export const ERRORS: Readonly<Record<ErrorName, ErrorEntry>> = catalogue;

export const ERROR_NAMES = Object.keys(catalogue) as readonly ErrorName[];

/** Whether the text is the name of an error of the catalogue. */
export function isErrorName(name: unknown): name is ErrorName {
  return typeof name === "string" && Object.hasOwn(ERRORS, name);
}
