/** Conflicts between devices of the configuration. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lookUpPath, type PathTarget } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { ConfiguredDevice } from "../dist/config/config.js";
import { problemText } from "../dist/config/config-problem.js";
import { deviceConflicts } from "../dist/config/device-conflicts.js";

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-devices-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

function configured(device: string, line: number): ConfiguredDevice {
  return { device, persistent: false, waitSeconds: 0, from: `/c:${line}` };
}

/** A disk with a partition; other paths are unchanged. */
function sysfs() {
  const sysfsRoot = join(folder, "sys");
  const put = (path: string, text: string) => {
    mkdirSync(join(sysfsRoot, path, ".."), { recursive: true });
    writeFileSync(join(sysfsRoot, path), text);
  };
  put("block/sdb/dev", "8:16\n");
  put("block/sdb/size", "4096\n");
  put("block/sdb/sdb1/dev", "8:17\n");
  put("block/sdb/sdb1/partition", "1\n");
  put("block/sdb/sdb1/start", "8\n");
  put("block/sdb/sdb1/size", "1024\n");
  mkdirSync(join(sysfsRoot, "dev/block"), { recursive: true });
  symlinkSync("../../block/sdb", join(sysfsRoot, "dev/block/8:16"));
  symlinkSync("../../block/sdb/sdb1", join(sysfsRoot, "dev/block/8:17"));
  const lookUp = async (path: string): Promise<PathTarget> => {
    const minor = { "/dev/disk/by-id/b": 16, "/dev/disk/by-id/b-part1": 17 }[path];
    if (minor === undefined) return await lookUpPath(path);
    const blockDevice = { major: 8, minor };
    const device = { major: 0, minor: 5 };
    return { realPath: path, device, blockDevice, identity: `block:8:${minor}` };
  };
  return { sysfsRoot, lookUp };
}

test("devices that are the same, or lie on each other, are reported with their lines", async () => {
  const probe = sysfs();
  const [disk, part] = ["/dev/disk/by-id/b", "/dev/disk/by-id/b-part1"];
  const said = async (...names: string[]) => {
    const devices = names.map((name, at) => configured(name, at + 1));
    return (await deviceConflicts(devices, probe)).map(problemText);
  };
  const hint = "Keep one of them: the daemon refuses the other when it starts.";
  assert.equal(await said(disk, part), [`/c:2: ${part} lies on ${disk} (/c:1). ${hint}`]);
  assert.equal(await said(part, disk), [`/c:2: ${part} (/c:1) lies on ${disk}. ${hint}`]);
  const [file, link, other] = ["a.img", "link", "b.img"].map((name) => join(folder, name));
  for (const path of [file!, other!]) writeFileSync(path, "");
  symlinkSync(file!, link!);
  assert.equal(await said(file!, link!, other!, part, "/dev/not/there"), [
    `/c:2: ${link} and ${file} (/c:1) are the same. ${hint}`,
  ]);
});

test.run();
