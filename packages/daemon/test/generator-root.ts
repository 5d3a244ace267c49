/** A root folder for blksnap-generator, and its output there. */
import { type SpawnSyncReturns, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as assert from "uvu/assert";

const GENERATOR = join(import.meta.dirname, "../system-generators/blksnap-generator");
export const CONFIG = '[[device]]\ndevice = "/dev/vg/a"\n';

export const hasSystemd = spawnSync("systemd-escape", ["--version"]).status === 0;
if (!hasSystemd) console.log("SKIPPED in part: systemd-escape is not here");

/** Of the running test. */
export let root: string;

export function setUpRoot(): void {
  root = mkdtempSync(join(tmpdir(), "blksnap-generator-"));
  const wants = join(root, "etc/systemd/system/multi-user.target.wants");
  for (const path of [wants, join(root, "etc/blksnap/blksnap.toml.d"), join(root, "proc/self")]) {
    mkdirSync(path, { recursive: true });
  }
  writeFileSync(join(wants, "blksnapd.service"), "");
  writeFileSync(join(root, "proc/self/mounts"), "/dev/sda1 / ext4 rw 0 0\n");
}

export function endRoot(): void {
  rmSync(root, { recursive: true });
}

export function runGenerator(into: string): SpawnSyncReturns<string> {
  const env = { PATH: process.env["PATH"], BLKSNAP_GENERATOR_ROOT: root };
  return spawnSync("sh", [GENERATOR, into, into, into], { env, encoding: "utf8" });
}

interface Given {
  readonly config?: string;
  readonly dropIn?: string;
  readonly crypttab?: string;
}

/** The generated files, by their paths. */
export function generated(
  fstab: string,
  { config = CONFIG, dropIn = "", crypttab = "" }: Given = {},
): Record<string, string> {
  writeFileSync(join(root, "etc/fstab"), fstab);
  writeFileSync(join(root, "etc/crypttab"), crypttab);
  writeFileSync(join(root, "etc/blksnap/blksnap.toml"), config);
  writeFileSync(join(root, "etc/blksnap/blksnap.toml.d/a.toml"), dropIn);
  const into = join(root, "out");
  rmSync(into, { recursive: true, force: true });
  mkdirSync(into);
  const { status, stderr } = runGenerator(into);
  assert.equal([status, stderr], [0, ""]);
  return Object.fromEntries(
    readdirSync(into, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".conf") && !path.startsWith("blksnapd.service.d/"))
      .map((path) => [path, readFileSync(join(into, path), "utf8")]),
  );
}

export const withoutComments = (text = ""): string => text.replace(/^#.*\n/gm, "");

export const unitsOf = (files: Record<string, string>): string[] =>
  Object.keys(files)
    .map((path) => path.replace(".d/50-blksnap.conf", ""))
    .sort();
