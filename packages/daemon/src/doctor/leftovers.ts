/** Leftovers of daemons: devices, links, files, freezes. Only those of blksnap are ever fixed. */
import { lstatSync, rmdirSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type FoundRecord,
  isUnfinishedRecord,
  RECORD_SUFFIX,
  recordOf,
  type SnapshotRecord,
  StateFile,
  type TrackerRecord,
} from "@blksnap/driver";
import { EBUSY, ETIMEDOUT } from "@blksnap/errors";
import { usersOf } from "@blksnap/linux-block";
import { isOurs, type UblkDeviceInfo, UblkState } from "@blksnap/ublk";
import { claimInHelper } from "@blksnap/uring";
import { error, type FixableFinding, ok, warning } from "./finding.js";
import { type HostFiles, type OwnProcess, startHint } from "./host-files.js";

/** A device looks dead for a moment while it is being created. */
const RECHECK_DELAY_MS = 2_000;
const LINKS = "/dev/blksnap";
/** Opening a node over a waiting device returns at once, because it reads nothing. */
const CLAIM_TIMEOUT_MS = 5_000;
const HELD = [-EBUSY, -ETIMEDOUT];

/** The host's ublk devices, of all servers. */
export interface UblkDevices {
  list(): Promise<UblkDeviceInfo[]>;
  info(id: number): Promise<UblkDeviceInfo | undefined>;
  remove(id: number): Promise<void>;
}

/** Contents of the state directory. */
export interface Records {
  readonly trackers: readonly TrackerRecord[];
  readonly snapshots: readonly SnapshotRecord[];
  readonly damaged: readonly string[];
}

export function recordsFrom(found: readonly FoundRecord[]): Records {
  const values = (prefix: string): unknown[] =>
    found.flatMap(({ name, ...rest }) =>
      name.startsWith(prefix) && "value" in rest ? [rest.value] : [],
    );
  return {
    trackers: values(StateFile.trackerRecord.prefix) as TrackerRecord[],
    snapshots: values(StateFile.snapshotRecord.prefix) as SnapshotRecord[],
    damaged: found.flatMap(({ name, problem }) => (problem === undefined ? [] : [name])),
  };
}

/** Numbers of the recorded ublk devices. */
function recordedDevices({ trackers, snapshots }: Records): Set<number> {
  const images = snapshots.flatMap(({ members }) => members.flatMap(({ image }) => image ?? []));
  return new Set([...trackers.flatMap(({ front }) => front ?? []), ...images]);
}

export interface Surroundings {
  readonly host: HostFiles;
  readonly records: Records;
  readonly processes: readonly OwnProcess[];
  /** The daemon that owns the state directory. */
  readonly daemon: OwnProcess | undefined;
  /** Tag of the state directory on devices; devices with other tags belong to other daemons, or are unclaimed here. */
  readonly owner: number;
}

export async function checkDevices(
  devices: UblkDevices,
  given: Surroundings,
): Promise<FixableFinding[]> {
  const all = await devices.list();
  const own = all.filter((info) => isOurs(info, given.owner));
  const recorded = recordedDevices(given.records);
  const findings: FixableFinding[] = [];
  for (const info of own) {
    const finding = await judgeDevice(devices, info, recorded.has(info.id), given);
    if (finding !== undefined) findings.push(finding);
  }
  const others = all.length - own.length;
  const served = own.length - findings.length;
  const what = `devices served: ${served}; of other servers: ${others}`;
  return [ok("ublk_devices", what), ...findings];
}

async function judgeDevice(
  devices: UblkDevices,
  info: UblkDeviceInfo,
  isRecorded: boolean,
  given: Surroundings,
): Promise<FixableFinding | undefined> {
  const { processes, daemon, owner } = given;
  const check = "ublk_devices";
  const path = `/dev/ublkb${info.id}`;
  if (info.state === UblkState.LIVE) {
    if (processes.some(({ pid }) => pid === info.serverPid)) return undefined;
    const what = `${path} is served by process ${info.serverPid}, which has ended, or is not blksnapd`;
    const why = "the kernel notices a death after up to 30 s; no daemon can resume it before";
    return warning(check, what, why, "Check again in a minute");
  }
  if (info.state === UblkState.DEAD) {
    if (daemon !== undefined && (await isAnotherSoon(devices, info.id, owner))) return undefined;
    const what = `${path} belongs to blksnap and has ended`;
    const finding = warning(
      check,
      what,
      "it occupies a number and memory",
      "doctor --fix removes it",
    );
    return { ...finding, fix: () => remove(devices, info.id, owner) };
  }
  const why = "its users wait until a daemon serves it";
  if (isRecorded) {
    const hint = daemon === undefined ? startHint(given.host) : "See the daemon's log";
    return error(check, `${path} waits for a daemon`, why, hint);
  }
  return judgeForgotten(devices, path, info.id, owner);
}

/** A waiting device without a record. */
async function judgeForgotten(
  devices: UblkDevices,
  path: string,
  id: number,
  owner: number,
): Promise<FixableFinding> {
  const check = "ublk_devices";
  const why = "no daemon can resume it";
  const users = lastingUsers(path);
  if (users.length > 0) {
    const what = `${path} waits without a record, and is in use: ${users.join(", ")}`;
    const hint = `Stop what uses it (for a file system: umount --lazy), then run doctor --fix`;
    return error(check, what, why, hint);
  }
  const held = await heldNodes(path);
  const holds = `a file system that is unmounted lazily, or mounted in a container, holds ${held.join(", ")}`;
  const who = held.length === 0 ? "has no users" : `has a single user: ${holds}`;
  const what = `${path} waits without a record, and ${who}`;
  // No daemon can serve it again: only an error releases its users, also those in an unmount.
  const hint = `doctor --fix removes it${held.length === 0 ? "" : ", and its waiting users get EIO"}`;
  return {
    ...warning(check, what, why, hint),
    fix: () => remove(devices, id, owner),
  };
}

/**
 * What keeps a device in use. A device-mapper node counts only if it has users itself: under a live attach one always
 * leads to the front.
 */
export function lastingUsers(path: string, find: FindUsers = findUsers): string[] {
  return find(path).flatMap((user) => {
    const node = nodeIn(user);
    return node === undefined ? user : find(`/dev/${node}`).map((its) => `${user} (${its})`);
  });
}

/** Nodes over a device that are held by something outside the mount tables that are read here. */
export async function heldNodes(
  path: string,
  find: FindUsers = findUsers,
  claim: Claim = (node) => claimInHelper(node, CLAIM_TIMEOUT_MS),
): Promise<string[]> {
  const held: string[] = [];
  for (const node of find(path).map(nodeIn)) {
    if (node !== undefined && HELD.includes(await claim(`/dev/${node}`))) held.push(node);
  }
  return held;
}

function nodeIn(user: string): string | undefined {
  return /^used by (dm-\d+)$/.exec(user)?.[1];
}

type FindUsers = (path: string) => readonly string[];
type Claim = (path: string) => Promise<number>;
const findUsers: FindUsers = (path) => usersOf([path]).get(path) ?? [];

async function isAnotherSoon(devices: UblkDevices, id: number, owner: number): Promise<boolean> {
  await sleep(RECHECK_DELAY_MS);
  const info = await devices.info(id);
  return info?.state !== UblkState.DEAD || !isOurs(info, owner);
}

/** Checks again: the number may belong to another device by now. */
async function remove(devices: UblkDevices, id: number, owner: number): Promise<string> {
  const info = await devices.info(id);
  if (info === undefined) return `/dev/ublkb${id} is gone`;
  if (!isOurs(info, owner) || info.state === UblkState.LIVE) {
    throw new Error(`/dev/ublkb${id} is used by another server now`);
  }
  await devices.remove(id);
  return `removed /dev/ublkb${id}`;
}

/** Links to devices that are gone, or whose number another server has by now. */
export function checkLinks(
  { host, records }: Surroundings,
  ownDevices: readonly number[],
  folder: string = LINKS,
): FixableFinding[] {
  const recorded = recordedDevices(records);
  const stale = linksBelow(host, folder).filter((path) => {
    const id = Number(/^(?:\.\.|\/dev)\/ublkb(\d+)$/.exec(host.link(path) ?? "")?.[1] ?? -1);
    return id >= 0 && !ownDevices.includes(id) && !recorded.has(id);
  });
  if (stale.length === 0) return [ok("links", `${folder} has no stale link`)];
  return stale.map((path) => {
    const what = `${path} does not lead to a device of blksnap`;
    const why = "users of that name get another disk, or none";
    const finding = warning("links", what, why, "doctor --fix removes it");
    return { ...finding, fix: async () => removeLink(host.path(folder), host.path(path)) };
  });
}

function linksBelow(host: Surroundings["host"], folder: string): string[] {
  return host.names(folder).flatMap((name) => {
    const path = `${folder}/${name}`;
    return host.link(path) === undefined ? linksBelow(host, path) : [path];
  });
}

function removeLink(folder: string, path: string): string {
  if (lstatSync(path).isSymbolicLink()) unlinkSync(path);
  try {
    for (let at = dirname(path); at.length >= folder.length; at = dirname(at)) rmdirSync(at);
  } catch {
    // Other links remain.
  }
  return `removed ${path}`;
}

/** Files of unrecorded trackers and snapshots, in a directory that no daemon owns. */
export function checkStateFiles(
  { host, records, daemon }: Surroundings,
  stateDirectory: string,
  /** Runs a function while no daemon can own the directory. */
  withLock: (work: () => void) => void,
): FixableFinding[] {
  const check = "state_files";
  const damaged = records.damaged.map((name) => {
    const why = "its device or snapshot is not resumed";
    const hint = `Move ${stateDirectory}/${name}${RECORD_SUFFIX} away if nothing needs it`;
    return error(check, `the record ${name} is damaged`, why, hint);
  });
  if (daemon !== undefined)
    return [...damaged, ok(check, `${stateDirectory} is in use by the daemon`)];
  const stale = host.names(stateDirectory).filter((name) => isStale(name, records));
  if (stale.length === 0) return [...damaged, ok(check, `${stateDirectory} has no stale file`)];
  const findings = stale.map((name) => {
    const path = join(stateDirectory, name);
    const what = `${path} belongs to no record`;
    const finding = warning(check, what, "it takes memory", "doctor --fix removes it");
    const fix = async (): Promise<string> => {
      withLock(() => unlinkSync(host.path(path)));
      return `removed ${path}`;
    };
    return { ...finding, fix };
  });
  return [...damaged, ...findings];
}

function isStale(name: string, { trackers, snapshots, damaged }: Records): boolean {
  const record = recordOf(name);
  if (record === undefined) return isUnfinishedRecord(name);
  // The next daemon examines the copy of a damaged record.
  if (StateFile.returnRecord.idsIn(record) !== undefined) return false;
  // A map of a damaged record still belongs to it.
  const onRecord = [
    ...trackers.map(({ id }) => StateFile.trackerRecord.name(id)),
    ...snapshots.map(({ id }) => StateFile.snapshotRecord.name(id)),
    ...[...damaged, StateFile.handover],
  ];
  return !onRecord.includes(record);
}

/** Nodes that an exchange of tables has left suspended; without a daemon nothing resumes them. */
export function checkSuspended(
  { host, daemon }: Pick<Surroundings, "host" | "daemon">,
  stateDirectory: string,
): FixableFinding[] {
  return host.names(stateDirectory).flatMap((name) => {
    const [number] = StateFile.exchange.idsIn(name) ?? [];
    const sysfs = `/sys/dev/block/${number}/dm`;
    if (number === undefined || host.text(`${sysfs}/suspended`)?.trim() !== "1") return [];
    const node = host.text(`${sysfs}/name`)?.trim() ?? number;
    const what = `${node} is suspended, and an exchange of its tables has not ended`;
    const hint =
      daemon === undefined
        ? "Start the daemon, which resumes it: blksnapd --supervise"
        : "The daemon resumes it as soon as possible; its log says what prevents that";
    return [error("suspended_nodes", what, "its users wait", hint)];
  });
}

/** File systems that a take has frozen and nothing thaws. */
export function checkFreezes({ records, processes, daemon }: Surroundings): FixableFinding[] {
  const check = "freezes";
  const guards = processes.filter(({ role }) => role === "freeze-guard");
  const orphans = guards.filter(({ parent }) => parent !== daemon?.pid);
  if (orphans.length > 0) {
    const pids = orphans.map(({ pid }) => pid).join(", ");
    const what = `process ${pids} still holds file systems frozen, or thaws them, although its daemon has ended`;
    const hint = "Start the daemon: a thaw may wait for its devices";
    return [warning(check, what, "writers of these file systems wait", hint)];
  }
  const taking = records.snapshots.find(({ state }) => state === "taking");
  if (taking === undefined || daemon !== undefined) return [ok(check, "nothing is left frozen")];
  const of = taking.members.flatMap(({ tracker }) =>
    records.trackers.filter(({ id }) => id === tracker).map(({ device }) => device),
  );
  const what = `a take of ${of.join(", ")} was interrupted: file systems there may be frozen`;
  const hint = "Start the daemon, then fsfreeze --unfreeze MOUNTPOINT where writers hang";
  return [warning(check, what, "writers of these file systems wait", hint)];
}
