import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Splice } from "../../dist/index.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

/** What sysfs has of a node, and of what its tables lead to. */
function world() {
  const sysfs = mkdtempSync(join(tmpdir(), "splice-state-"));
  const folder = join(sysfs, "dev/block/254:3");
  mkdirSync(join(folder, "dm"), { recursive: true });
  mkdirSync(join(folder, "slaves"));
  const files = { dev: "254:3", size: "1000", ro: "0", "dm/name": "vg-data", "dm/uuid": "LVM-x" };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), `${text}\n`);
  return { sysfs, slave: (name: string) => join(folder, "slaves", name) };
}

test("a front counts as under its node from when a table leads to it", () => {
  const { sysfs, slave } = world();
  const splice = new Splice(NODE);
  splice.noteLink(0, sysfs);
  assert.not(splice.leadsTo(0, sysfs));
  symlinkSync("../ublkb0", slave("ublkb0"));
  assert.not(splice.leadsTo(0, sysfs), "it was not there");
  splice.noteLink(0, sysfs);
  assert.ok(splice.leadsTo(0, sysfs));
  assert.not(splice.leadsTo(1, sysfs));
  assert.ok(new Splice(splice.node).leadsTo(0, sysfs), "as the next daemon has it on record");
  symlinkSync("../sda", slave("sda"));
  assert.not(splice.leadsTo(0, sysfs), "another table leads elsewhere, too");
});

test("a front that was away and is back is a loss", () => {
  const { sysfs, slave } = world();
  const splice = new Splice(NODE);
  symlinkSync("../ublkb0", slave("ublkb0"));
  splice.noteLink(0, sysfs);
  splice.state = "on";
  assert.not(splice.noteLoss(0, sysfs));
  // Both are there at once, so that they differ in their inodes.
  symlinkSync("../ublkb0", slave("next"));
  rmSync(slave("ublkb0"));
  renameSync(slave("next"), slave("ublkb0"));
  assert.ok(splice.noteLoss(0, sysfs));
  assert.is(splice.state, "lost");
  assert.not(splice.noteLoss(0, sysfs), "told once");
});

test.run();
