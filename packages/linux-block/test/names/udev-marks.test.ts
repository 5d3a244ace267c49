import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UdevMarks } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";

const KINDS = ["fronts", "images"] as const;

const test = suite("udev marks");
let folder: string;
let marks: UdevMarks<(typeof KINDS)[number]>;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-udev-"));
  marks = new UdevMarks(join(folder, "marks"), KINDS, folder);
});
test.after.each(() => rmSync(folder, { recursive: true }));

function marked(kind: string, name: string): boolean {
  return existsSync(join(folder, "marks", kind, name));
}

test("a device has one mark; without any there is no directory", () => {
  marks.add("fronts", "ublkb3");
  marks.add("images", "ublkb4");
  assert.equal([marked("fronts", "ublkb3"), marked("images", "ublkb4")], [true, true]);
  marks.add("fronts", "ublkb4");
  assert.equal([marked("fronts", "ublkb4"), marked("images", "ublkb4")], [true, false]);
  marks.remove("ublkb3");
  marks.remove("ublkb4");
  marks.remove("ublkb4");
  assert.is(existsSync(join(folder, "marks")), false);
});

test("a mark may have a line", () => {
  const textOf = () => readFileSync(join(folder, "marks/fronts/ublkb3"), "utf8");
  marks.add("fronts", "ublkb3", "259:1");
  assert.is(textOf(), "259:1\n");
  marks.add("fronts", "ublkb3");
  assert.is(textOf(), "");
});

test("marks of devices that are gone are removed, others stay", () => {
  marks.removeStale();
  mkdirSync(join(folder, "block/ublkb1"), { recursive: true });
  for (const name of ["ublkb1", "ublkb2"]) marks.add("images", name);
  marks.removeStale();
  assert.equal([marked("images", "ublkb1"), marked("images", "ublkb2")], [true, false]);
});

test("a directory that cannot be created stops nothing", () => {
  const nowhere = new UdevMarks("/proc/self/stat/none", KINDS, folder);
  nowhere.add("fronts", "ublkb1");
  nowhere.remove("ublkb1");
  nowhere.removeStale();
});

test.run();
