/** Devices on which the daemon must put none of its own files. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Registry } from "../dist/registry.js";

const test = suite("own devices");
let sysfsRoot: string;

/** /dev/mapper/old on /dev/nbd0, and /dev/sda. */
test.before.each(() => {
  sysfsRoot = mkdtempSync(join(tmpdir(), "blksnap-own-"));
  mkdirSync(join(sysfsRoot, "dev/block"), { recursive: true });
  const disks = [
    ["43:0", "nbd0"],
    ["8:0", "sda"],
    ["253:0", "dm-0"],
  ] as const;
  for (const [number, name] of disks) {
    const folder = join(sysfsRoot, "devices", name);
    mkdirSync(join(folder, "slaves"), { recursive: true });
    writeFileSync(join(folder, "dev"), `${number}\n`);
    symlinkSync(folder, join(sysfsRoot, "dev/block", number));
  }
  symlinkSync(join(sysfsRoot, "devices/nbd0"), join(sysfsRoot, "devices/dm-0/slaves/nbd0"));
});
test.after.each(() => rmSync(sysfsRoot, { recursive: true }));

function registryOf(isNbd: boolean): Registry {
  const none = (): undefined => undefined;
  return new Registry({ sysfsRoot } as never, () => [], none, none, isNbd);
}

const NBD = { major: 43, minor: 0 };
const ABOVE_NBD = { major: 253, minor: 0 };
const DISK = { major: 8, minor: 0 };

test("with exports as fronts, an NBD device may show one of them", async () => {
  const registry = registryOf(true);
  const own = { path: "/dev/nbd0", how: "which may be an export of this daemon" };
  assert.equal(await registry.ownDeviceBeneath(NBD), own);
  assert.equal(await registry.ownDeviceBeneath(ABOVE_NBD), own, "through other layers, too");
  assert.is(await registry.ownDeviceBeneath(DISK), undefined);
});

test("with devices as fronts, an NBD device belongs to another server", async () => {
  const registry = registryOf(false);
  const front = { deviceNumber: "8:0", path: "/dev/ublkb0" };
  registry.addTracker({ id: 1, front } as never);
  assert.is(await registry.ownDeviceBeneath(ABOVE_NBD), undefined);
});

test.run();
