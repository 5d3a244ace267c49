import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isStacked } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

test("a volume, and a partition of one, has disks below it; a disk and its partition have none", () => {
  const sysfs = mkdtempSync(join(tmpdir(), "blksnap-sysfs-"));
  try {
    const devices = { "8:0": "sda", "8:1": "sda/sda1", "254:0": "dm-0", "9:1": "md0/md0p1" };
    mkdirSync(join(sysfs, "dev/block"), { recursive: true });
    for (const [number, place] of Object.entries(devices)) {
      mkdirSync(join(sysfs, "devices", place), { recursive: true });
      symlinkSync(join("../../devices", place), join(sysfs, "dev/block", number));
    }
    mkdirSync(join(sysfs, "devices/sda/slaves"));
    for (const disk of ["dm-0", "md0"]) {
      mkdirSync(join(sysfs, "devices", disk, "slaves"));
      writeFileSync(join(sysfs, "devices", disk, "slaves/sda"), "");
    }
    const found = Object.keys(devices).map((number) => [number, isStacked(number, sysfs)]);
    assert.equal(Object.fromEntries(found), {
      "8:0": false,
      "8:1": false,
      "254:0": true,
      "9:1": true,
    });
    assert.not(isStacked("7:7", sysfs));
  } finally {
    rmSync(sysfs, { recursive: true });
  }
});

test.run();
