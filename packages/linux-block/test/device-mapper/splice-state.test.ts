import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Splice } from "../../dist/index.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

/** Sysfs of a node, and of its tables' devices. */
function world() {
  const sysfs = mkdtempSync(join(tmpdir(), "splice-state-"));
  const folder = join(sysfs, "dev/block/254:3");
  mkdirSync(join(folder, "dm"), { recursive: true });
  mkdirSync(join(folder, "slaves"));
  const files = { dev: "254:3", size: "1000", ro: "0", "dm/name": "vg-data", "dm/uuid": "LVM-x" };
  const set = (name: string, text: string) => writeFileSync(join(folder, name), `${text}\n`);
  for (const [name, text] of Object.entries(files)) set(name, text);
  return { sysfs, set, slave: (name: string) => join(folder, "slaves", name) };
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

test("a renamed node is the same node under its new name", () => {
  for (const uuid of ["LVM-x", ""]) {
    const { sysfs, set, slave } = world();
    set("dm/uuid", uuid);
    const splice = new Splice({ ...NODE, uuid });
    symlinkSync("../ublkb0", slave("ublkb0"));
    splice.noteLink(0, sysfs);
    splice.state = "on";
    assert.not(splice.noteName(sysfs));
    set("dm/name", "vg-archive");
    assert.not(splice.noteLoss(0, sysfs));
    assert.is(splice.present(sysfs)?.name, "vg-archive");
    assert.ok(splice.noteName(sysfs));
    assert.not(splice.noteName(sysfs), "told once");
    assert.is(splice.node.name, "vg-archive");
    rmSync(slave("ublkb0"));
    assert.ok(splice.present(sysfs) !== undefined, "it is known without the link, too");
  }
});

test("a node that is renamed while another table is inactive, or already exchanged, is the same one", () => {
  for (const uuid of ["LVM-x", ""]) {
    const { sysfs, set, slave } = world();
    set("dm/uuid", uuid);
    const splice = new Splice({ ...NODE, uuid });
    symlinkSync("../ublkb0", slave("ublkb0"));
    splice.noteLink(0, sysfs);
    splice.state = "on";
    symlinkSync("../dm-1", slave("dm-1"));
    assert.ok(splice.noteLoss(0, sysfs));
    set("dm/name", "vg-archive");
    assert.ok(splice.noteName(sysfs));
    rmSync(slave("ublkb0"));
    assert.is(splice.present(sysfs)?.name, "vg-archive");
    splice.state = "ending";
    set("dm/name", "vg-third");
    assert.not(splice.noteName(sysfs), "it is being given back");
  }
});

test("another node with the number is not mistaken for a renamed one", () => {
  const { sysfs, set, slave } = world();
  set("dm/uuid", "");
  const splice = new Splice({ ...NODE, uuid: "" });
  symlinkSync("../ublkb0", slave("ublkb0"));
  splice.noteLink(0, sysfs);
  splice.state = "on";
  set("dm/name", "another");
  symlinkSync("../ublkb0", slave("next"));
  rmSync(slave("ublkb0"));
  renameSync(slave("next"), slave("ublkb0"));
  assert.not(splice.noteName(sysfs));
  assert.ok(splice.noteLoss(0, sysfs));
  assert.is(splice.why, "it was removed");
});

test("a front that was away and is back is a loss", () => {
  const { sysfs, slave } = world();
  const splice = new Splice(NODE);
  symlinkSync("../ublkb0", slave("ublkb0"));
  splice.noteLink(0, sysfs);
  splice.state = "on";
  assert.not(splice.noteLoss(0, sysfs));
  // Both exist at once, so that their inodes differ.
  symlinkSync("../ublkb0", slave("next"));
  rmSync(slave("ublkb0"));
  renameSync(slave("next"), slave("ublkb0"));
  assert.ok(splice.noteLoss(0, sysfs));
  assert.is(splice.state, "lost");
  assert.not(splice.noteLoss(0, sysfs), "told once");
  assert.is(splice.why, "another program gave it another table for some time");
});

test.run();
