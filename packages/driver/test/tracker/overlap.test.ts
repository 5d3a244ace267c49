import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { identityOf } from "../../dist/system/path-target.js";
import { assertNoOverlap, type TrackedPath } from "../../dist/tracker/overlap.js";

const test = suite("overlap");
/** Devices that this machine need not have: their identities come from files at their paths. */
const NUMBERS: Record<string, string> = {
  sda: "8:0",
  sda1: "8:1",
  sda2: "8:2",
  "dm-0": "252:0",
  "dm-1": "252:1",
  loop0: "7:0",
  loop1: "7:1",
  ublkb0: "259:0",
  ublkb0p1: "259:1",
};
let folder: string;
/** The original of the front ublkb0. */
let original: string;

function write(path: string, text: string): void {
  const full = join(folder, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, `${text}\n`);
}

function device(name: string, disk = name): void {
  const place = disk === name ? `block/${name}` : `block/${disk}/${name}`;
  write(`${place}/dev`, NUMBERS[name] as string);
  if (disk !== name) write(`${place}/partition`, "1");
  mkdirSync(join(folder, "dev/block"), { recursive: true });
  symlinkSync(join(folder, place), join(folder, "dev/block", NUMBERS[name] as string));
}

function slave(above: string, below: string, place = `block/${below}`): void {
  mkdirSync(join(folder, "block", above, "slaves"), { recursive: true });
  symlinkSync(join(folder, place), join(folder, "block", above, "slaves", below));
}

function number(name: string) {
  const [major = 0, minor = 0] = (NUMBERS[name] as string).split(":").map(Number);
  return { major, minor };
}

/** A device node is a file with its name, so that the path has an identity without the device. */
function node(name: string): string {
  return join(folder, "nodes", name);
}

const probe = () => ({
  sysfsRoot: folder,
  mountinfoPath: join(folder, "mountinfo"),
  lookUp: async (path: string) => {
    const name = path.split("/").at(-1) as string;
    const blockDevice = NUMBERS[name] === undefined ? undefined : number(name);
    const onFront = path.startsWith("/mnt/");
    const identity = blockDevice === undefined ? await identityOf(path) : `block:${NUMBERS[name]}`;
    return {
      realPath: path,
      device: number(onFront ? "ublkb0p1" : "sda1"),
      blockDevice,
      identity,
    };
  },
  layers: ({ major, minor }: { major: number; minor: number }) =>
    `${major}:${minor}` === NUMBERS["ublkb0"] ? [number(original)] : undefined,
  procRoot: join(folder, "proc"),
});

function tracked(name: string, ...fronts: string[]): TrackedPath {
  const identity = `block:${NUMBERS[name]}`;
  if (fronts.includes("ublkb0")) original = name;
  return { device: node(name), identity, places: [number(name), ...fronts.map(number)] };
}

async function refusal(path: string, ...others: TrackedPath[]): Promise<string> {
  return assertNoOverlap(path, others, probe()).then(
    () => "",
    (error) => `${error.code}: ${error.message.replaceAll(`${folder}/nodes/`, "/dev/")}`,
  );
}

test.before.each(() => {
  original = "sda";
  folder = mkdtempSync(join(tmpdir(), "blksnap-overlap-"));
  for (const name of ["sda", "dm-0", "dm-1", "loop0", "ublkb0"]) device(name);
  device("sda1", "sda");
  device("sda2", "sda");
  device("ublkb0p1", "ublkb0");
  slave("dm-0", "sda2", "block/sda/sda2");
  slave("dm-1", "ublkb0");
  for (const name of Object.keys(NUMBERS)) write(`nodes/${name}`, "");
  write("image", "");
  write("block/loop0/loop/backing_file", join(folder, "image"));
  write("mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:1 / /mnt rw - ext4 /dev/x rw");
});
test.after.each(() => rmSync(folder, { recursive: true }));

test("a partition of a tracked disk, and a device on one, overlap", async () => {
  const disk = tracked("sda", "ublkb0");
  assert.is(
    await refusal(node("sda1"), disk),
    "DEVICE_OVERLAPS: /dev/sda1 lies on /dev/sda, which is tracked: /dev/sda1 → /dev/sda",
  );
  assert.match(await refusal(node("dm-0"), disk), /: \/dev\/dm-0 → \/dev\/sda2 → \/dev\/sda$/);
});

test("a device or file above a front overlaps", async () => {
  const disk = tracked("sda", "ublkb0");
  assert.match(
    await refusal(node("ublkb0p1"), disk),
    /: \/dev\/ublkb0p1 → \/dev\/ublkb0 → \/dev\/sda$/,
  );
  assert.match(await refusal(node("dm-1"), disk), /: \/dev\/dm-1 → \/dev\/ublkb0 → \/dev\/sda$/);
});

test("a loop device over a tracked file, and the file of a tracked loop device, overlap", async () => {
  const path = join(folder, "image");
  const identity = await identityOf(path);
  const place = { identity, device: number("sda1"), path };
  const file: TrackedPath = { device: path, identity, places: [place, number("ublkb0")] };
  assert.match(await refusal(node("loop0"), file), /loop0 lies on .*image, which is tracked/);
  assert.match(await refusal(path, tracked("loop0")), /loop0, which is tracked, lies on .*image: /);
});

test("two loop devices over one file overlap, but not over two parts of it", async () => {
  device("loop1");
  write("block/loop1/loop/backing_file", join(folder, "image"));
  assert.is(
    (await refusal(node("loop1"), tracked("loop0"))).replaceAll(folder, ""),
    "DEVICE_OVERLAPS: /dev/loop1 and /dev/loop0, which is tracked, lie on the same bytes of " +
      "/image: /dev/loop1 → /image → /dev/loop0",
  );
  write("block/loop0/loop/sizelimit", "4096");
  write("block/loop1/loop/offset", "4096");
  assert.is(await refusal(node("loop1"), tracked("loop0")), "");
  write("block/loop1/loop/offset", "4095");
  assert.match(await refusal(node("loop1"), tracked("loop0")), /same bytes/);
});

test("a tracked device is identified by its number, whatever its name leads to", async () => {
  const disk = { ...tracked("sda", "ublkb0"), device: node("gone") };
  assert.match(await refusal(node("sda1"), disk), /lies on .*gone \(now \/dev\/sda\), which/);
  device("loop1");
  const moved = { ...tracked("loop1"), device: node("sda") };
  assert.is(await refusal(node("sda"), moved), "");
});

test("neighbours do not overlap", async () => {
  assert.is(await refusal(node("sda1"), tracked("sda2", "ublkb0")), "");
  assert.is(await refusal(node("sda1"), tracked("dm-0", "ublkb0")), "");
  assert.is(await refusal(node("sda2")), "");
});

test("stacks that cannot be resolved are not refused", async () => {
  rmSync(join(folder, "mountinfo"));
  const path = join(folder, "image");
  assert.is(await refusal(path, tracked("dm-0")), "");
});

test.run();
