/**
 * Who uses a block device: what is mounted from it, holds it, swaps to it, or has it open.
 *
 * Nothing here opens a device or queries a file system: it works, and cannot hang, while nothing serves the device.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { entriesOf } from "../sysfs-text.js";
import { parseMountinfo } from "./mountinfo.js";

/** Rescans a disk after a writer has closed it; never for long, and fails harmlessly. */
const PASSING_USERS = ["systemd-udevd", "(udev-worker)", "udevd"];

export interface ProbeOptions {
  readonly proc?: string;
  readonly sysfs?: string;
  /** A process whose own descriptors do not count. */
  readonly exceptPid?: number;
}

/**
 * What uses each device and its partitions, in words; nothing for unused ones.
 * @param paths of block devices, `/dev/NAME`
 */
export function usersOf(
  paths: readonly string[],
  options: ProbeOptions = {},
): Map<string, readonly string[]> {
  const { proc = "/proc", sysfs = "/sys", exceptPid = 0 } = options;
  const disks = paths.map((path) => new Disk(path, sysfs));
  const found = new Map<string, string[]>(paths.map((path) => [path, []]));
  const add = (node: string, what: string): void => {
    for (const disk of disks) if (disk.nodes.includes(node)) found.get(disk.path)?.push(what);
  };
  for (const { device, source, mountPoint } of userMounts(proc)) {
    for (const disk of disks) {
      const isOn = disk.numbers.includes(device) || disk.nodes.includes(source);
      if (isOn) found.get(disk.path)?.push(`mounted at ${mountPoint}`);
    }
  }
  for (const disk of disks) {
    for (const holder of disk.holders) found.get(disk.path)?.push(`used by ${holder}`);
  }
  for (const { loop, file } of loopDevices(sysfs)) add(file, `used by ${loop}`);
  for (const line of text(join(proc, "swaps")).split("\n").slice(1)) {
    add(line.split(" ")[0] as string, "swap");
  }
  for (const { path, user } of openers(proc, disks, exceptPid)) add(path, user);
  return new Map([...found].map(([path, users]) => [path, [...new Set(users)]]));
}

/** A disk and its partitions in sysfs. */
class Disk {
  readonly path: string;
  readonly nodes: readonly string[];
  readonly numbers: readonly string[];
  readonly holders: readonly string[];

  constructor(path: string, sysfs: string) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const folder = join(sysfs, "class/block", name);
    const partitions = entriesOf(folder).filter((entry) => entry.startsWith(name));
    const folders = [folder, ...partitions.map((entry) => join(folder, entry))];
    this.path = path;
    this.nodes = [path, ...partitions.map((entry) => `/dev/${entry}`)];
    this.numbers = folders.map((entry) => text(join(entry, "dev")).trim());
    this.holders = folders.flatMap((entry) => entriesOf(join(entry, "holders")));
  }
}

/** Mounts that users see; a daemon may live in a namespace of its own. */
function userMounts(proc: string) {
  return [join(proc, "1/mountinfo"), join(proc, "self/mountinfo")].flatMap((path) =>
    parseMountinfo(text(path, "latin1")),
  );
}

function loopDevices(sysfs: string): { loop: string; file: string }[] {
  return entriesOf(join(sysfs, "block"))
    .filter((name) => name.startsWith("loop"))
    .map((loop) => ({ loop, file: text(join(sysfs, "block", loop, "loop/backing_file")).trim() }));
}

/** Processes that have one of the nodes open. */
function openers(proc: string, disks: readonly Disk[], exceptPid: number) {
  const nodes = new Set(disks.flatMap(({ nodes: its }) => its));
  const found: { path: string; user: string }[] = [];
  for (const pid of entriesOf(proc)) {
    if (!/^[0-9]+$/.test(pid) || Number(pid) === exceptPid) continue;
    for (const path of openFiles(join(proc, pid, "fd"))) {
      if (!nodes.has(path)) continue;
      const name = text(join(proc, pid, "comm")).trim();
      if (!PASSING_USERS.includes(name)) found.push({ path, user: `${name} (pid ${pid})` });
    }
  }
  return found;
}

function openFiles(folder: string): string[] {
  return entriesOf(folder).flatMap((fd) => {
    try {
      return [readlinkSync(join(folder, fd))];
    } catch {
      // Closed meanwhile, or the process has ended.
      return [];
    }
  });
}

/** Empty if there is no such file. */
function text(path: string, encoding: BufferEncoding = "utf8"): string {
  try {
    return readFileSync(path, encoding);
  } catch {
    return "";
  }
}
