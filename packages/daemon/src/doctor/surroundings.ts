/** Checks of the host: node, programs, state directory, socket, device names. */
import { lstatSync, realpathSync, statfsSync, statSync } from "node:fs";
import { error, type Finding, ok, warning } from "./finding.js";
import type { HostFiles } from "./host-files.js";

const OLDEST_NODE: readonly [major: number, minor: number] = [20, 19];
/** `include/uapi/linux/magic.h` */
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
const STATE_SPACE_MIN_BYTES = 64 * 2 ** 20;
const OTHERS = 0o007;
const GROUP_OR_OTHERS_WRITE = 0o022;

/** @param version like "v20.19.0" */
export function checkNode(version: string): Finding {
  const [major = 0, minor = 0] = version.slice(1).split(".").map(Number);
  const isNew = major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1]);
  if (isNew) return ok("node_version", `Node ${version}`);
  const what = `Node ${version} is older than ${OLDEST_NODE.join(".")}`;
  return error("node_version", what, "the daemon does not run on it", "Install a newer Node");
}

/** A shell and fsfreeze freeze file systems, outside of the daemon. */
export function checkFreeze(host: HostFiles): Finding {
  const missing = missingPrograms(host, "sh", "fsfreeze");
  if (missing.length === 0) return ok("freeze", "file systems can be frozen");
  const why = "without it snapshots of mounted file systems are not taken";
  return error("freeze", `${missing.join(", ")} is not installed`, why, "Install util-linux");
}

/** The kernel may not read the partition tables of ublk devices; partx does it. */
export function checkPartitions(host: HostFiles): Finding {
  const missing = missingPrograms(host, "partx");
  if (missing.length === 0) return ok("partitions", "partitions of fronts and images are made");
  const why = "without it fronts and images of whole disks have no partitions";
  return warning("partitions", "partx is not installed", why, "Install util-linux");
}

function missingPrograms(host: HostFiles, ...names: readonly string[]): string[] {
  const folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
  return names.filter((name) => !folders.some((folder) => host.exists(`${folder}/${name}`)));
}

/** @param owner user id of the daemon */
export function checkStateDirectory(path: string, owner = 0): Finding {
  const check = "state_directory";
  try {
    const { mode, uid } = statSync(path);
    const { type, bavail, bsize } = statfsSync(path);
    if (uid !== owner || (mode & GROUP_OR_OTHERS_WRITE) !== 0) {
      const why = "a program that can write there controls devices";
      return error(
        check,
        `users other than the daemon's can write to ${path}`,
        why,
        `chmod go-w ${path}`,
      );
    }
    if (type !== TMPFS_MAGIC && type !== RAMFS_MAGIC) {
      const why = "maps on a disk cost extra writes, and may lie on a front";
      return warning(check, `${path} is not on tmpfs`, why, "Give --state-dir below /run");
    }
    const freeBytes = bavail * bsize;
    const free = `${Math.floor(freeBytes / 2 ** 20)} MiB free`;
    if (freeBytes < STATE_SPACE_MIN_BYTES) {
      const why = "a snapshot needs a map there";
      return warning(check, `${path} has only ${free}`, why, "Enlarge /run, or end snapshots");
    }
    return ok(check, `${path} is on tmpfs, ${free}`);
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException;
    if (code === "ENOENT") return ok(check, `${path} will be created by the daemon`);
    return error(check, `${path}: ${code}`, "it contains the daemon's maps", "Run as root");
  }
}

/**
 * @param groups text of /etc/group
 * @param hasDaemon whether a daemon should listen there
 * @param owner user id of the daemon
 */
export function checkSocket(path: string, groups: string, hasDaemon: boolean, owner = 0): Finding {
  const check = "socket";
  try {
    const { mode, uid, gid } = lstatSync(path);
    if ((mode & OTHERS) !== 0 || uid !== owner) {
      const why = "it gives root's power over block devices";
      return error(check, `every user can open ${path}`, why, `chmod o= ${path}`);
    }
    if (owner !== 0) return ok(check, `${path} is for its user alone`);
    const group = groups.split("\n").find((line) => line.split(":")[2] === String(gid));
    const wanted = /^blksnap:[^:]*:(\d+)/m.exec(groups)?.[1];
    if (wanted !== undefined && String(gid) !== wanted) {
      const why = "its members cannot use the daemon";
      const what = `${path} does not belong to the group blksnap`;
      return warning(check, what, why, "Restart the daemon: blksnapctl daemon upgrade");
    }
    const whom = wanted === undefined ? "root" : `root and group ${group?.split(":")[0]}`;
    return ok(check, `${path} is for ${whom}`);
  } catch (failure) {
    const { code } = failure as NodeJS.ErrnoException;
    if (code === "ENOENT" && !hasDaemon)
      return ok(check, `${path} does not exist without a daemon`);
    const hint = "Give --socket of the running daemon, or restart it";
    return error(check, `${path}: ${code}`, "no client can reach the daemon", hint);
  }
}

/** A tracked device: the original's name at attach, its identity, and its front's path. */
export interface TrackedPaths {
  readonly device: string;
  /** Absent for a file: it is known by its name. */
  readonly identity?: string;
  readonly front: string;
}

/** Names like /dev/disk/by-uuid must lead to the front, because the original is claimed. */
export function checkNames(
  host: HostFiles,
  tracked: readonly TrackedPaths[],
  folder: string = "/dev/disk/by-uuid",
): Finding {
  const check = "device_names";
  const paths = host.names(folder).map((name) => `${folder}/${name}`);
  const wrong = tracked.flatMap(({ device, identity, front }) =>
    paths
      .filter((path) => real(host.path(path)) === originalNode(host, device, identity))
      .map((path) => ({ path, device, front })),
  );
  const [first] = wrong;
  if (first === undefined) return ok(check, "no udev link bypasses a front");
  const links = wrong.map(({ path }) => path).join(", ");
  const what = `${links} leads to ${first.device}, not to its front`;
  const why = "a mount by that name fails, or bypasses the front after the next boot";
  return warning(check, what, why, `Mount ${first.front} or its name in /dev/blksnap`);
}

const RULES = "59-blksnap.rules";
const RULE_FOLDERS = [
  "/etc/udev/rules.d",
  "/run/udev/rules.d",
  "/usr/lib/udev/rules.d",
  "/lib/udev/rules.d",
];

/** @param images the writable ones */
export function checkSearches(host: HostFiles, images: readonly string[]): Finding {
  const check = "uuid_searches";
  const isHidden = RULE_FOLDERS.some((folder) => host.exists(`${folder}/${RULES}`));
  const what = `${images.join(", ")} ${images.length === 1 ? "is a writable image" : "are writable images"}`;
  if (images.length === 0)
    return ok(check, "no writable image can be mounted by UUID instead of its front");
  if (isHidden) return ok(check, `${what}, hidden by udev from searches by UUID`);
  const why =
    "mount UUID=, findfs and blkid -U can find it instead of the front, and data written there is lost at destroy";
  const hint = `Mount fronts by name, install udev/${RULES}, or use snapshot_create --read-only-images`;
  return warning(check, what, why, hint);
}

/** The name of the attach may rightly lead to the front by now. */
function originalNode(host: HostFiles, device: string, identity = ""): string {
  const uevent = host.text(`/sys/dev/block/${identity.replace("block:", "")}/uevent`) ?? "";
  const name = /^DEVNAME=(.+)$/m.exec(uevent)?.[1];
  return real(host.path(name === undefined ? device : `/dev/${name}`));
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
