/**
 * Finds problems of a host from outside of the daemon: it works without a daemon, and while one hangs. The caller
 * adds what only the daemon knows.
 */
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import type { DoctorReport } from "@blksnap/api";
import {
  DAEMON_VERSION,
  type DriverOptions,
  ownerTag,
  readRecords,
  settingsOf,
} from "@blksnap/driver";
import { isOurs, listDeviceIds, UblkControl, UblkError, UblkFeature } from "@blksnap/ublk";
import { Ring, tryLockFile } from "@blksnap/uring";
import { error, type Finding, type FixableFinding, ok } from "./finding.js";
import { checkFlushes } from "./flushes.js";
import { HostFiles, type OwnProcess, ownerOf, ownProcesses } from "./host-files.js";
import {
  type ControlAccess,
  checkControl,
  checkIoUring,
  checkKernelVersion,
  checkModule,
} from "./kernel.js";
import {
  checkDevices,
  checkFreezes,
  checkLinks,
  checkStateFiles,
  checkSuspended,
  type Records,
  recordsFrom,
  type UblkDevices,
} from "./leftovers.js";
import { checkLvm } from "./lvm.js";
import { checkProcesses } from "./processes.js";
import {
  checkFreeze,
  checkNames,
  checkNode,
  checkPartitions,
  checkSearches,
  checkSocket,
  checkStateDirectory,
} from "./surroundings.js";

export interface DoctorOptions {
  readonly stateDirectory: string;
  readonly socketPath: string;
  /** Fix what belongs to blksnap. */
  readonly fix: boolean;
  /** As configured; a running daemon and records count as well. */
  readonly isNbd: boolean;
}

/** Check for a daemon with these options. */
export function examineFor(
  options: DriverOptions,
  given: Omit<DoctorOptions, "stateDirectory" | "isNbd">,
): Promise<DoctorReport> {
  const { stateDirectory, frontend } = settingsOf(options);
  return examine({ ...given, stateDirectory, isNbd: frontend === "nbd" });
}

async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const host = new HostFiles();
  const control = await openControl();
  try {
    const findings = await allFindings(host, control, options);
    const checks: Finding[] = [];
    for (const finding of findings) checks.push(await treat(finding, options.fix));
    return { version: DAEMON_VERSION, checks };
  } finally {
    if (control instanceof UblkControl) control.close();
  }
}

async function allFindings(
  host: HostFiles,
  control: UblkControl | ControlAccess,
  { stateDirectory, socketPath, isNbd: isConfigured }: DoctorOptions,
): Promise<FixableFinding[]> {
  const processes = ownProcesses(host, process.pid);
  const daemon = ownerOf(host, stateDirectory, processes);
  const found = readRecords(stateDirectory, "");
  const records = recordsFrom(found);
  const isNbd = isConfigured || isServedOverNbd(daemon, records);
  const user = isNbd ? process.geteuid?.() : 0;
  const owner = ownerTag(stateDirectory);
  const given = { host, records, processes, daemon, owner };
  const devices = control instanceof UblkControl ? devicesOf(control) : undefined;
  const all = (await devices?.list()) ?? [];
  const own = all.filter((info) => isOurs(info, owner)).map(({ id }) => id);
  const ofUblk = records.trackers.filter(({ front }) => front !== null);
  const tracked = ofUblk.map(({ device, identity, front }) => ({
    device,
    identity,
    front: `/dev/ublkb${front}`,
  }));
  return [
    ...(isNbd ? [OVER_NBD] : checkForUblk(host, control)),
    checkIoUring(host, ringProblem),
    checkNode(process.version),
    checkFreeze(host),
    checkPartitions(host),
    checkStateDirectory(stateDirectory, user),
    checkSocket(socketPath, host.text("/etc/group") ?? "", daemon !== undefined, user),
    ...checkProcesses(host, daemon, processes, isNbd),
    checkNames(host, tracked),
    checkSearches(host, writableImages(records)),
    checkLvm(host, ofUblk),
    checkFlushes(host, ofUblk),
    ...(devices === undefined ? [] : await checkDevices(devices, given)),
    ...(devices === undefined ? [] : checkLinks(given, own)),
    ...checkStateFiles(given, stateDirectory, (work) => withLock(stateDirectory, work)),
    ...checkSuspended(given, stateDirectory),
    ...checkFreezes(given),
  ];
}

function writableImages({ snapshots }: Records): string[] {
  return snapshots
    .filter((one) => one.readOnlyImages !== true && one.releasableImages !== true)
    .flatMap(({ members }) => members.flatMap(({ image }) => image ?? []))
    .map((number) => `/dev/ublkb${number}`);
}

/** Applies the fix of a finding, if requested. */
async function treat({ fix, ...finding }: FixableFinding, isWanted: boolean): Promise<Finding> {
  if (fix === undefined || !isWanted) return finding;
  try {
    return { check: finding.check, state: "ok", what: await fix(), fixed: true };
  } catch (failure) {
    const why = `it could not be repaired: ${(failure as Error).message}`;
    return { ...finding, why, hint: "See dmesg, and try again" };
  }
}

const OVER_NBD = ok("frontend", "served over NBD: neither ublk nor root is needed");

/** The frontend of the running daemon, or of the last one. */
export function isServedOverNbd(
  daemon: Pick<OwnProcess, "words"> | undefined,
  { trackers }: Pick<Records, "trackers">,
): boolean {
  const isAsked = /(^| )--frontend[= ]nbd( |$)/.test(daemon?.words.join(" ") ?? "");
  return isAsked || trackers.some(({ front }) => front === null);
}

function checkForUblk(host: HostFiles, control: UblkControl | ControlAccess): Finding[] {
  return [
    ...checkPrivilege(),
    ...checkKernelVersion(release()),
    checkModule(host, isModuleLoadable),
    ...checkControl(control, UblkFeature),
  ];
}

function checkPrivilege(): Finding[] {
  if (process.geteuid?.() === 0) return [];
  const why = "most checks need root";
  return [error("privilege", "doctor does not run as root", why, "Run it as root")];
}

async function openControl(): Promise<UblkControl | ControlAccess> {
  try {
    return await UblkControl.open();
  } catch (failure) {
    const code = failure instanceof UblkError ? failure.code : "CONTROL_FAILED";
    return { problem: (failure as Error).message, code };
  }
}

function devicesOf(control: UblkControl): UblkDevices {
  return {
    list: async () => {
      const infos = [];
      for (const id of listDeviceIds()) infos.push(await control.deviceInfo(id));
      return infos.filter((info) => info !== undefined);
    },
    info: (id) => control.deviceInfo(id),
    remove: (id) => control.deleteDevice(id),
  };
}

function isModuleLoadable(): boolean {
  try {
    execFileSync("modprobe", ["--dry-run", "--quiet", "ublk_drv"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

function ringProblem(): string | undefined {
  try {
    new Ring({ entries: 4 }).close();
    return undefined;
  } catch (failure) {
    return (failure as Error).message;
  }
}

/** @throws Error if a daemon was started meanwhile */
function withLock(stateDirectory: string, work: () => void): void {
  const path = join(stateDirectory, "lock");
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    if (!tryLockFile(fd)) throw new Error("a daemon has been started meanwhile");
    work();
  } finally {
    closeSync(fd);
  }
}
