import { readlink } from "node:fs/promises";
import { namesIn, type PathTarget, readText } from "./probe.js";
import type { SysfsDevice } from "./sysfs-device.js";

const UBLK_NAME = /^ublkb(\d+)(p\d+)?$/;
const ACCESS_MODE = 0o3;
/** Most examined processes of one server. */
const FILES_MAX = 1024;

/** Processes on this host that serve a device: nbd's from sysfs, ublk's by their open files. */
export async function serversOf(procRoot: string, device: SysfsDevice): Promise<number[]> {
  if (device.serverPid !== undefined) return [device.serverPid];
  const ublk = UBLK_NAME.exec(device.kernelName);
  if (ublk === null || device.partitionOf !== undefined) return [];
  const node = `/dev/ublkc${ublk[1]}`;
  const pids: number[] = [];
  for (const name of await namesIn(procRoot)) {
    if (!/^\d+$/.test(name)) continue;
    const files = await openFiles(procRoot, Number(name));
    if (files.some(({ path }) => path === node)) pids.push(Number(name));
  }
  return pids;
}

/** The files and block devices that a process may write to. Skips inaccessible ones. */
export async function writtenBy(
  procRoot: string,
  pid: number,
  lookUp: (path: string) => Promise<PathTarget>,
): Promise<PathTarget[]> {
  const found = new Map<string, PathTarget>();
  for (const { path, fd } of (await openFiles(procRoot, pid)).slice(0, FILES_MAX)) {
    if (path.startsWith("/dev/") && !(await isBlockNode(path, lookUp))) continue;
    const info = (await readText(`${procRoot}/${pid}/fdinfo/${fd}`)) ?? "";
    const flags = Number.parseInt(/^flags:\s+(\d+)$/m.exec(info)?.[1] ?? "0", 8);
    if ((flags & ACCESS_MODE) === 0) continue;
    const there = await lookUp(path).catch(() => undefined);
    if (there !== undefined) found.set(there.identity, there);
  }
  return [...found.values()];
}

async function isBlockNode(
  path: string,
  lookUp: (path: string) => Promise<PathTarget>,
): Promise<boolean> {
  const there = await lookUp(path).catch(() => undefined);
  return there?.blockDevice !== undefined;
}

async function openFiles(
  procRoot: string,
  pid: number,
): Promise<{ readonly fd: string; readonly path: string }[]> {
  const files: { fd: string; path: string }[] = [];
  for (const fd of await namesIn(`${procRoot}/${pid}/fd`)) {
    const path = await readlink(`${procRoot}/${pid}/fd/${fd}`).catch(() => "");
    if (path.startsWith("/")) files.push({ fd, path });
  }
  return files;
}
