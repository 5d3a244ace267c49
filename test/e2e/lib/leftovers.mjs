/** Neither a test nor the daemon may leave anything behind. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, dirname } from "node:path";
import { SOCKET_PATH } from "./daemon.mjs";
import { until } from "./wait.mjs";

const STATE_FOLDER = "/run/blksnap/state";
/**
 * A lock file stays, because another daemon may hold it at once. The state for the next daemon exists as long as a
 * daemon serves; the event log lives as long as the machine runs.
 */
const STATE_THAT_STAYS = new Set(["lock", "served.json", "events.log", "events-facts.json"]);
const SETTLE_LIMIT_MS = 300_000;

function list(folder) {
  return existsSync(folder) ? readdirSync(folder) : [];
}

function readOr(path, otherwise) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return otherwise;
  }
}

/** ublk devices, and the links to them. */
export function ublkDevices() {
  return [
    ...list("/sys/class/ublk-char").map((name) => `/sys/class/ublk-char/${name}`),
    ...list("/dev").filter((name) => /^ublk[bc]\d/.test(name)),
    ...list("/dev/blksnap").map((name) => `/dev/blksnap/${name}`),
    ...list("/run/blksnap-udev").map((name) => `/run/blksnap-udev/${name}`),
  ];
}

function stateFiles() {
  const beside = new Set([basename(SOCKET_PATH), "nbd.sock", basename(STATE_FOLDER)]);
  return [
    ...list(dirname(SOCKET_PATH)).filter((name) => !beside.has(name)),
    ...list(STATE_FOLDER).filter((name) => !STATE_THAT_STAYS.has(name)),
  ];
}

function mounts(folder) {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .filter((line) => line.includes("/dev/ublk") || line.includes(` ${folder}/`));
}

/** Processes that the test started: they are in its process group. Those that make calls end with their daemon. */
function processes(known) {
  const group = readFileSync("/proc/self/stat", "utf8").split(") ")[1].split(" ")[2];
  return list("/proc")
    .filter((name) => /^\d+$/.test(name) && !known.includes(Number(name)))
    .map((pid) => ({ pid, stat: readOr(`/proc/${pid}/stat`, "") }))
    .filter(({ stat }) => {
      const [state, , processGroup] = (stat.split(") ")[1] ?? "").split(" ");
      return processGroup === group && state !== "Z";
    })
    .map(({ stat }) => stat.split(") ")[0])
    .filter((name) => !/\(apart/.test(name));
}

/** How many processes make calls for a daemon: some stay, and are talked to through two sockets each. */
function callersOf(pid) {
  return list("/proc").filter((name) => {
    const [program, rest = ""] = readOr(`/proc/${name}/stat`, "").split(") ");
    return /\(apart/.test(program) && Number(rest.split(" ")[1]) === pid;
  }).length;
}

/** Resources of a process: open files by kind, and mappings of the daemon's maps. */
export function holdings(pid) {
  const open = list(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[\d+\]$/, "");
    } catch {
      // It was the descriptor of the connection that just ended.
      return undefined;
    }
  });
  for (let sockets = 2 * callersOf(pid); sockets > 0 && open.includes("socket"); sockets--) {
    open.splice(open.indexOf("socket"), 1);
  }
  const mapped = readOr(`/proc/${pid}/maps`, "")
    .split("\n")
    .filter((line) => /\/run\/blksnap|\(deleted\)|\/dev\/ublk/.test(line))
    .map((line) => `mapping of ${line.slice(73)}`);
  return [...open, ...mapped].filter((name) => name !== undefined).sort();
}

/** Entries of `later` that `earlier` lacks. */
export function added(earlier, later) {
  const rest = [...earlier];
  return later.filter((name) => {
    const at = rest.indexOf(name);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}

/**
 * Everything that is left at the moment, each with a name.
 *
 * @param {{folder: string, knownPids?: number[], daemon?: {pid: number, held: string[]}}} setting
 */
function leftovers({ folder, knownPids, daemon }) {
  const held = daemon ? added(daemon.held, holdings(daemon.pid)) : [];
  return [
    ...ublkDevices(),
    ...stateFiles().map((name) => `${STATE_FOLDER}/${name}`),
    ...mounts(folder).map((line) => `mount ${line}`),
    ...list(folder).map((name) => `${folder}/${name}`),
    ...(knownPids ? processes(knownPids) : []).map((name) => `process ${name}`),
    ...held.map((name) => `held by the daemon: ${name}`),
  ];
}

/** Fails unless nothing is left soon: the kernel ends some things only after the last close. */
export async function assertNothingLeft(setting) {
  let left = [];
  function isNothingLeft() {
    left = leftovers(setting);
    return left.length === 0;
  }
  try {
    await until("nothing is left", isNothingLeft, SETTLE_LIMIT_MS);
  } catch {
    throw new Error(`left behind:\n  ${left.join("\n  ")}`);
  }
}
