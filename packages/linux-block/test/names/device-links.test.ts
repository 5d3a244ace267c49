import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceLinks } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";

const test = suite("device links");
let folder: string;
let links: DeviceLinks;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-links-"));
  links = new DeviceLinks(join(folder, "own"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

function device(name: string): string {
  const path = join(folder, name);
  writeFileSync(path, "");
  return path;
}

test("a link's name is that of the node, without characters that need quoting", () => {
  assert.is(links.add("/dev/mapper/vg-root", device("ublkb0")), join(folder, "own/vg-root"));
  assert.is(links.add("/srv/disk images/a b.img", device("ublkb1")), join(folder, "own/a_b.img"));
});

test("a name that is taken gets the device's number, and the last link removes the directory", () => {
  const [one, other] = [device("ublkb0"), device("ublkb1")];
  const first = links.add("data", one);
  assert.is(first, join(folder, "own/data"));
  assert.is(links.add("data", one), first);
  const second = links.add("data", other);
  assert.is(second, join(folder, "own/data-ublkb1"));
  assert.is(readlinkSync(second!), "../ublkb1");
  assert.equal([links.has("data", one), links.has("data", other)], [true, true]);
  links.remove(first, other);
  assert.is(links.has("data", one), true, "a link that leads elsewhere stays");
  links.remove(first, one);
  links.remove(second, other);
  assert.is(existsSync(join(folder, "own")), false);
});

test("links that lead nowhere are replaced, or removed with the directory", () => {
  const kept = links.add("kept", device("ublkb0"));
  symlinkSync("../ublkb7", join(folder, "own/stale"));
  symlinkSync("../ublkb8", join(folder, "own/data"));
  assert.is(links.add("data", device("ublkb1")), join(folder, "own/data"));
  links.removeStale();
  assert.equal(readdirSync(join(folder, "own")).sort(), ["data", "kept"]);
  links.remove(join(folder, "own/data"), join(folder, "ublkb1"));
  rmSync(join(folder, "ublkb0"));
  links.removeStale();
  assert.is(existsSync(kept!) || existsSync(join(folder, "own")), false);
});

test("a device has a unique link, too, which is removed with all its folders", () => {
  const [one, other] = [device("ublkb0"), device("ublkb1")];
  const own = (place: string) => join(folder, "own", place);
  const targetOf = (place: string) => readlinkSync(own(place));
  const first = links.add("/dev/a/data", one, "by-original/dev/a/data");
  const second = links.add("/dev/b/data", other, "by-original/dev/b/data");
  assert.equal([first, second], [own("data"), own("data-ublkb1")]);
  const places = ["a", "b"].map((group) => `by-original/dev/${group}/data`);
  assert.equal(places.map(targetOf), [one, other]);
  links.remove(first, one);
  assert.not(existsSync(own("by-original/dev/a")));
  // Left by a killed daemon, and another device has the number by now.
  links.add("/dev/a/data-image", other, "snapshot/id/dev/a/data");
  assert.not(existsSync(own("by-original")));
  assert.is(targetOf("snapshot/id/dev/a/data"), other);
  links.add("/dev/a/data-image", one, "snapshot/id/dev/a/data");
  assert.is(targetOf("snapshot/id/dev/a/data"), one);
  rmSync(one);
  links.removeStale();
  assert.not(existsSync(own("snapshot")));
  for (const name of readdirSync(own("."))) links.remove(own(name), other);
  assert.not(existsSync(own(".")));
});

test("a volume with the name of a folder of unique links has at least one link", () => {
  const [one, other] = [device("ublkb0"), device("ublkb1")];
  const short = links.add("/dev/vg/snapshot", one, "by-original/dev/vg/snapshot");
  assert.is(short, join(folder, "own/snapshot"));
  assert.ok(links.add("/dev/vg/x-image", other, "snapshot/id/dev/vg/x"));
  links.remove(short, one);
  links.add("/dev/vg/x-image", other, "snapshot/id/dev/vg/x");
  assert.is(
    links.add("/dev/vg/snapshot", one, "by-original/dev/vg/snapshot"),
    join(folder, "own/snapshot-ublkb0"),
  );
});

test("a directory that cannot be created stops nothing", () => {
  const nowhere = new DeviceLinks("/proc/self/stat/none");
  assert.is(nowhere.add("data", "/dev/ublkb0"), undefined);
  nowhere.remove("/proc/self/stat/none/data", "/dev/ublkb0");
  nowhere.removeStale();
});

test.run();
