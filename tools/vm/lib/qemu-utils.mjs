/**
 * QEMU's NBD programs of 8.2 or later, which are the only ones of others in Debian with extended headers. Debian 12
 * has them in its backports: they are unpacked into the cache, and not installed. Tests find them there
 * (packages/nbd/test/newer-qemu.ts).
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, createFolderAtOnce } from "./cache.mjs";
import { fetchBackports } from "./packages.mjs";

const OLDEST = [8, 2];

function isNewer(program) {
  const { stdout } = spawnSync(program, ["--version"], { encoding: "utf8" });
  const [, major, minor] = (/\b(\d+)\.(\d+)\./.exec(stdout ?? "") ?? []).map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

/** Fetches them if neither the system nor the cache has them. @throws VmError they cannot be had */
export function ensureNewerQemuUtils({ onProgress }) {
  const folder = join(cacheFolder(), "qemu-utils");
  if (existsSync(folder) || isNewer("qemu-nbd")) return;
  onProgress("getting newer NBD programs of QEMU (2 MB)");
  createFolderAtOnce(folder, (work) => fetchBackports(["qemu-utils"], work));
}
