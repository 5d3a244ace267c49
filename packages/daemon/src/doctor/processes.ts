/** Checks of the daemon's processes: behaviour when memory is short, and standbys. */

import { mountAt, parseMountinfo } from "@blksnap/linux-block";
import { isSharedRoot } from "../supervisor.js";
import { error, type Finding, ok, warning } from "./finding.js";
import { type HostFiles, type OwnProcess, startHint } from "./host-files.js";

/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of Linux, which PR_SET_IO_FLUSHER sets. */
const IO_FLUSHER_FLAGS = 0x80000 | 0x100000;
/** Field 9 of /proc/PID/stat, counted after the name in parentheses. */
const FLAGS_FIELD = 6;
const OOM_NEVER = -1000;
const SUPERVISE = "Start it as blksnapd --supervise";
const SUPERVISE_HINT = `${SUPERVISE}, as root`;
const RECLAIM_WHY = "when memory is short it may wait for its own devices forever";

/**
 * @param daemon the one that serves; undefined if none does
 * @param isNbd it has no block devices that its own memory could wait for
 */
export function checkProcesses(
  host: HostFiles,
  daemon: OwnProcess | undefined,
  all: readonly OwnProcess[],
  isNbd = false,
): Finding[] {
  if (daemon === undefined) {
    const why = "devices are not served; the users of existing ones wait";
    return [warning("daemon", "no daemon runs", why, startHint(host))];
  }
  return [
    ok("daemon", `blksnapd runs, pid ${daemon.pid}`),
    checkStandby(daemon, all, isNbd),
    ...(isNbd ? [] : checkForDevices(host, daemon.pid)),
    checkProgram(host, daemon),
    checkLog(host, daemon),
  ];
}

function checkForDevices(host: HostFiles, pid: number): Finding[] {
  return [
    checkFlusher(host, pid),
    checkLockedMemory(host, pid),
    checkOomScore(host, pid),
    checkSwap(host, pid),
    checkNamespace(host, pid),
  ];
}

function checkStandby(daemon: OwnProcess, all: readonly OwnProcess[], isNbd: boolean): Finding {
  const supervisor = all.find(({ pid, role }) => role === "supervisor" && pid === daemon.parent);
  if (supervisor === undefined) {
    const why = "after a crash, users of its devices wait until a daemon is started";
    const what = `daemon ${daemon.pid} has no supervisor`;
    return warning("standby", what, why, isNbd ? SUPERVISE : SUPERVISE_HINT);
  }
  const standby = all.find(
    ({ pid, parent, role }) => role === "daemon" && parent === supervisor.pid && pid !== daemon.pid,
  );
  if (standby !== undefined) return ok("standby", `a second daemon stands by, pid ${standby.pid}`);
  const why = "after a crash, users wait until another daemon has started";
  return warning("standby", "no second daemon stands by", why, "See the daemon's log");
}

function checkFlusher(host: HostFiles, pid: number): Finding {
  const tids = host.names(`/proc/${pid}/task`);
  const unmarked = tids.filter((tid) => {
    const stat = host.text(`/proc/${pid}/task/${tid}/stat`);
    if (stat === undefined) return false;
    const flags = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[FLAGS_FIELD]);
    return (flags & IO_FLUSHER_FLAGS) !== IO_FLUSHER_FLAGS;
  });
  if (unmarked.length === 0) return ok("io_flusher", `all ${tids.length} threads are I/O flushers`);
  const what = `threads ${unmarked.join(", ")} of daemon ${pid} are not I/O flushers`;
  return error("io_flusher", what, RECLAIM_WHY, SUPERVISE_HINT);
}

function statusKib(host: HostFiles, pid: number, name: string): number {
  const text = host.text(`/proc/${pid}/status`) ?? "";
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
}

function checkLockedMemory(host: HostFiles, pid: number): Finding {
  const limits = host.text(`/proc/${pid}/limits`) ?? "";
  const limit = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1] ?? "unknown";
  const lockedKib = statusKib(host, pid, "VmLck");
  if (lockedKib > 0) {
    const of = limit === "unlimited" ? "" : `, limit ${limit} bytes`;
    return ok("locked_memory", `${lockedKib} KiB of the program are locked${of}`);
  }
  const what = `nothing of daemon ${pid} is locked (limit ${limit})`;
  const why = "its program may be paged in from a disk that it serves";
  return error("locked_memory", what, why, "Run as root, with LimitMEMLOCK=infinity");
}

function checkOomScore(host: HostFiles, pid: number): Finding {
  const score = Number(host.text(`/proc/${pid}/oom_score_adj`) ?? 0);
  if (score === OOM_NEVER) return ok("oom_score", "it is exempt from the out-of-memory killer");
  const what = `daemon ${pid} has an oom_score_adj of ${score}`;
  const why = "the out-of-memory killer may choose it, and its users wait";
  return warning("oom_score", what, why, "Run as root, with OOMScoreAdjust=-1000");
}

function checkSwap(host: HostFiles, pid: number): Finding {
  const areas = (host.text("/proc/swaps") ?? "").trim().split("\n").slice(1);
  const hint = "Set MemorySwapMax=0 for the service, or swapoff -a";
  const swappedKib = statusKib(host, pid, "VmSwap");
  if (swappedKib > 0) {
    const what = `${swappedKib} KiB of daemon ${pid} are swapped out`;
    return error("swap", what, RECLAIM_WHY, hint);
  }
  if (areas.length === 0) return ok("swap", "no swap is in use");
  const group = /^0::(.*)$/m.exec(host.text(`/proc/${pid}/cgroup`) ?? "")?.[1] ?? "/";
  const limit = host.text(`/sys/fs/cgroup${group}/memory.swap.max`)?.trim();
  if (limit === "0") return ok("swap", "the daemon's memory cannot be swapped");
  return warning("swap", `daemon ${pid} may be swapped out`, RECLAIM_WHY, hint);
}

function checkNamespace(host: HostFiles, pid: number): Finding {
  const check = "mount_namespace";
  const own = host.link(`/proc/${pid}/ns/mnt`);
  if (own !== host.link("/proc/1/ns/mnt")) return ok(check, "it has a mount namespace of its own");
  if (!isSharedRoot(host.text("/proc/1/mountinfo") ?? "")) {
    return ok(check, "the root is a private mount: it stays in the users' namespace");
  }
  const what = `daemon ${pid} runs in the users' mount namespace`;
  const why =
    "if it is the last process in the namespace, it unmounts file systems that it serves itself, and hangs";
  return warning(check, what, why, `${SUPERVISE_HINT}, with util-linux installed`);
}

/** A program on a device that it serves cannot be read while no daemon serves that. */
function checkProgram(host: HostFiles, { pid, words }: OwnProcess): Finding {
  const onFront = findOnFront(host, pid, [host.link(`/proc/${pid}/exe`), ...words.slice(1, 2)]);
  if (onFront === undefined) return ok("program", "the program is not on a ublk device");
  const why = "the next daemon cannot be started from a device that waits for it";
  const hint = "Install node and blksnapd on a file system that is not tracked";
  return error("program", `${onFront} lies on a ublk device`, why, hint);
}

/** A write to a log on a front can wait for the daemon that writes it. */
function checkLog(host: HostFiles, { pid }: OwnProcess): Finding {
  const onFront = findOnFront(host, pid, [host.link(`/proc/${pid}/fd/2`)]);
  if (onFront === undefined) return ok("log", "the log is not on a ublk device");
  const why = "the daemon may wait for itself";
  const hint = "Have another process write the log: systemd, or a pipe";
  return error("log", `${onFront} lies on a ublk device`, why, hint);
}

/** The first of some paths, as the process sees them, that is on a ublk device. */
function findOnFront(
  host: HostFiles,
  pid: number,
  paths: readonly (string | undefined)[],
): string | undefined {
  const mounts = parseMountinfo(host.text(`/proc/${pid}/mountinfo`) ?? "");
  return paths.find(
    (path) => path?.startsWith("/") && mountAt(path, mounts)?.source.startsWith("/dev/ublkb"),
  );
}
