import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { MARKS_DIRECTORY, UdevMarks } from "../dist/system/udev-marks.js";

const test = suite("udev marks");
let folder: string;
let marks: UdevMarks;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-udev-"));
  marks = new UdevMarks(join(folder, "marks"), folder);
});
test.after.each(() => rmSync(folder, { recursive: true }));

function marked(kind: string, id: number): boolean {
  return existsSync(join(folder, "marks", kind, `ublkb${id}`));
}

test("a device has one mark; without any there is no directory", () => {
  marks.add("fronts", 3);
  marks.add("images", 4);
  assert.equal([marked("fronts", 3), marked("images", 4)], [true, true]);
  marks.add("fronts", 4);
  assert.equal([marked("fronts", 4), marked("images", 4)], [true, false]);
  marks.remove(3);
  marks.remove(4);
  marks.remove(4);
  assert.is(existsSync(join(folder, "marks")), false);
});

test("marks of devices that are gone are removed, others stay", () => {
  marks.removeStale();
  mkdirSync(join(folder, "block/ublkb1"), { recursive: true });
  for (const id of [1, 2]) marks.add("images", id);
  marks.removeStale();
  assert.equal([marked("images", 1), marked("images", 2)], [true, false]);
});

test("a directory that cannot be made keeps nobody from anything", () => {
  const nowhere = new UdevMarks("/proc/self/stat/none", folder);
  nowhere.add("fronts", 1);
  nowhere.remove(1);
  nowhere.removeStale();
});

test("the rules look where the marks are, and hide what images hold", () => {
  const rules = readFileSync(
    new URL("../../daemon/udev/59-blksnap.rules", import.meta.url),
    "utf8",
  );
  for (const kind of ["fronts", "images"]) {
    assert.ok(rules.includes(`"${MARKS_DIRECTORY}/${kind}/$env{BLKSNAP_DISK}"`), kind);
  }
  const image = rules.split("\n").find((line) => line.includes("/images/"));
  assert.match(image ?? "", /UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG\}="1"/);
  // Every line is a comment, empty, or keys with operators between commas.
  const key = /^[A-Z]+(\{[A-Za-z_]+\})?(==|!=|\+=|=)"[^"]*"$/;
  const lines = rules.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  for (const part of lines.flatMap((line) => line.split(", "))) assert.match(part, key);
});

test.run();
