/** Targets that an export or a restore refuses, by name: on the device, in use, too small; none looks complete. */
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { ctlWords } from "../lib/daemon.mjs";
import { linear, mapped } from "../lib/device-mapper.mjs";
import { imageFile, loopDisk, partition } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 32 * MIB;
const FULL_BYTES = 4 * MIB;

/** A folder for all that a test leaves, removed with it. */
function folderOf(t) {
  const path = join(t.folder, t.name("backup-"));
  mkdirSync(path);
  t.defer(() => rmSync(path, { recursive: true }));
  return path;
}

async function succeeds(...words) {
  const { status, stdout, stderr } = await ctl(...words);
  assert.is(status, 0, `${words.join(" ")}: ${stderr}${stdout}`);
  return stdout;
}

async function fails(code, ...words) {
  const { status, stdout, stderr } = await ctl(...words);
  assert.is(status, 1, `${words.join(" ")}: ${stdout}`);
  assert.match(stderr, `[${code}]`);
  return stderr;
}

/** Runs exports of the device, whose own snapshot needs a store. */
function exporter(t, device) {
  const stores = storeFolder(t);
  const words = (to, more) => [
    "export",
    "-d",
    device,
    "--to",
    to,
    "-f",
    stores,
    "-l",
    "64M",
    ...more,
  ];
  return {
    fails: (code, to, ...more) => fails(code, ...words(to, more)),
    succeeds: (to, ...more) => succeeds(...words(to, more)),
    words: (to, ...more) => words(to, more),
  };
}

/** A tracked loop device with a file system on its front. */
async function tracked(t) {
  const file = imageFile(t, SIZE_BYTES);
  const device = await loopDisk(t, SIZE_BYTES, { file });
  const { front } = await attach(t, device);
  await makeFileSystem("zeroed ext4", front);
  return { file, device, front };
}

/** Folders on the file system, whatever lies between. */
async function placesOn(t, path) {
  const bound = join(t.folder, t.name("bind-"));
  mkdirSync(bound);
  await run(["mount", "--bind", path, bound]);
  t.defer(async () => {
    await run(["umount", bound]);
    rmSync(bound, { recursive: true });
  });
  const inner = await loopDisk(t, 8 * MIB, { file: imageFile(t, 8 * MIB, path) });
  await makeFileSystem("zeroed ext4", inner);
  const nested = await mount(t, inner);
  const places = [path, bound, nested.path];
  if (!readFileSync("/proc/filesystems", "utf8").includes("\toverlay\n")) {
    note("no overlay in this kernel");
    return places;
  }
  const [upper, work, over] = ["upper", "work", "over"].map((name) => join(path, name));
  for (const folder of [upper, work, over]) mkdirSync(folder);
  await run([
    "mount",
    "-t",
    "overlay",
    "-o",
    `lowerdir=/etc,upperdir=${upper},workdir=${work}`,
    "none",
    over,
  ]);
  t.defer(() => run(["umount", over]));
  return [...places, over];
}

test("what lies on the device is refused through loop, device-mapper, mounts and images", async (t) => {
  const { file, device, front } = await tracked(t);
  const exported = exporter(t, device);
  const { images } = await takeSnapshot(t, [device]);
  const stacked = await linear(t, front);
  const devices = [
    front,
    images[0],
    device,
    await loopDisk(t, SIZE_BYTES, { file: front }),
    stacked,
  ];
  for (const target of [...devices, file]) {
    const said = await exported.fails("TARGET_ON_DEVICE", target, "--raw");
    assert.match(said, target);
  }
  const { path } = await mount(t, stacked);
  for (const place of await placesOn(t, path)) {
    for (const [name, ...more] of [["copy", "--raw"], ["folder"], ["chain", "--qcow2"]]) {
      const target = join(place, "new", name);
      await exported.fails("TARGET_ON_DEVICE", target, ...more);
      assert.not.ok(existsSync(join(place, "new")), place);
    }
    const output = join(place, "stream");
    const script = `exec ${exported
      .words("-")
      .join(" ")
      .replace(/^export/, ctlWords("export").join(" "))} > ${output}`;
    const { status, stderr } = await attempt(["sh", "-c", script]);
    assert.is(status, 1);
    assert.match(stderr, "[TARGET_ON_DEVICE]");
    assert.is(readFileSync(output, "utf8"), "");
    rmSync(output);
  }
});

test("partitions: the disk and the front of a tracked one are refused, its sibling is not", async (t) => {
  const disk = await loopDisk(t, 2 * SIZE_BYTES);
  const [first, second] = await partition(disk, [8, 8]);
  const { front } = await attach(t, first);
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=8", "oflag=direct"]);
  const exported = exporter(t, first);
  for (const target of [disk, first, front])
    await exported.fails("TARGET_ON_DEVICE", target, "--raw");
  await exported.succeeds(second, "--raw");
  await run(["cmp", first, second]);
});

test("device-mapper: what the device lies on is refused, another extent of that is not", async (t) => {
  const disk = await loopDisk(t, 2 * SIZE_BYTES);
  const sectors = SIZE_BYTES / 512;
  const [low, high] = await Promise.all(
    [0, sectors].map((start) => mapped(t, [`0 ${sectors} linear ${disk} ${start}`])),
  );
  const { front } = await attach(t, low.path);
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=32", "oflag=direct"]);
  const exported = exporter(t, low.path);
  for (const target of [disk, low.path]) await exported.fails("TARGET_ON_DEVICE", target, "--raw");
  await exported.succeeds(high.path, "--raw");
  await run(["cmp", low.path, high.path]);
});

test("no target is what another tracked device lies on, nor what the restored backups lie on", async (t) => {
  const { device, front } = await tracked(t);
  const other = await tracked(t);
  const into = folderOf(t);
  const held = imageFile(t, 2 * SIZE_BYTES, into);
  const holder = await loopDisk(t, 2 * SIZE_BYTES, { file: held });
  await makeFileSystem("zeroed ext4", holder);
  const { path } = await mount(t, holder);
  const backups = join(path, "backups");
  const exported = exporter(t, device);
  await exported.succeeds(backups);
  const before = readFileSync(other.file);
  await exported.fails("TARGET_IN_USE", other.file, "--raw");
  await exported.fails("TARGET_IN_USE", other.device, "--raw");
  const restored = (to, ...more) => ["restore", "--from", backups, "--to", to, ...more];
  for (const more of [[], ["--delta"]]) {
    for (const target of [other.file, other.device]) {
      await fails("TARGET_IN_USE", ...restored(target, ...more));
    }
    for (const target of [held, holder]) await fails("TARGET_EXISTS", ...restored(target, ...more));
  }
  assert.ok(before.equals(readFileSync(other.file)));
  await succeeds("verify", "--from", backups);
  // The front is how to write to a tracked device.
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=4", "oflag=direct"]);
  await succeeds(...restored(front));
  await checkFileSystem("ext4", front);
});

test("a target that is too small is named, and never looks complete", async (t) => {
  const { device, front } = await tracked(t);
  await run([
    "dd",
    "if=/dev/urandom",
    `of=${front}`,
    "bs=1M",
    "seek=1",
    "count=31",
    "oflag=direct",
  ]);
  const into = folderOf(t);
  const exported = exporter(t, device);
  const backups = join(into, "backups");
  await exported.succeeds(backups);
  const stream = join(into, "stream");
  await run(["sh", "-c", `${ctlWords(...exported.words("-")).join(" ")} > ${stream}`]);
  const small = await loopDisk(t, SIZE_BYTES - MIB);
  const tiny = join(into, "tiny");
  mkdirSync(tiny);
  await run(["mount", "-t", "tmpfs", "-o", `size=${FULL_BYTES}`, "none", tiny]);
  t.defer(() => run(["umount", tiny]));
  const words = (to) => [
    ["TARGET_TOO_SMALL", exported.words(small, "--raw", "--record", join(into, "record"))],
    ["TARGET_TOO_SMALL", ["restore", "--from", backups, "--to", small]],
    ["TARGET_FULL", exported.words(to, "--raw")],
    ["TARGET_FULL", ["restore", "--from", backups, "--to", to]],
    ["TARGET_FULL", exported.words(join(tiny, "chain"), "--qcow2")],
    ["TARGET_FULL", exported.words(join(tiny, "folder"))],
  ];
  const copy = join(tiny, "copy");
  for (const [code, all] of words(copy)) {
    const said = await fails(code, ...all);
    assert.match(said, code === "TARGET_TOO_SMALL" ? small : tiny);
    assert.not.ok(existsSync(copy), all.join(" "));
    for (const name of ["copy.incomplete", "copy.blksnap.json"])
      rmSync(join(tiny, name), { force: true });
    assert.is((await attempt(["blkid", "--probe", small])).status, 2, "it has a superblock");
  }
  const { status, stderr } = await attempt([
    "sh",
    "-c",
    `${ctlWords("restore", "--from", "-", "--to", small).join(" ")} < ${stream}`,
  ]);
  assert.is(status, 1);
  assert.match(stderr, "[TARGET_TOO_SMALL]");
  const { points } = JSON.parse(await succeeds("list", "--from", join(tiny, "folder"), "--json"));
  assert.equal(points, []);
  assert.equal((await attempt(["sh", "-c", `ls ${join(tiny, "chain")}/*.qcow2`])).stdout, "");
  assert.equal(await t.client.snapshotCollect(), []);
});

test("of two exports to one block device, by any of its names, one continues", async (t) => {
  const { device, front } = await tracked(t);
  const into = folderOf(t);
  const disk = await loopDisk(t, SIZE_BYTES);
  const link = join(into, "link");
  await run(["ln", "-s", disk, link]);
  await run(["dd", "if=/dev/urandom", `of=${front}`, "bs=1M", "count=32", "oflag=direct"]);
  await takeSnapshot(t, [device]);
  const words = (to, record) => [
    "export",
    "-d",
    device,
    "--to",
    to,
    "--raw",
    "--record",
    join(into, record),
  ];
  const all = [words(disk, "one"), words(link, "two"), words(disk, "one"), words(link, "three")];
  const ends = await Promise.all(all.map((one) => attempt(ctlWords(...one))));
  const good = ends.filter(({ status }) => status === 0);
  assert.ok(good.length > 0);
  for (const { status, stderr } of ends) {
    if (status !== 0) assert.match(stderr, /\[(BACKUP_BUSY|TARGET_IN_USE)\]/);
  }
  note(`${good.length} of ${ends.length} exports completed`);
  await run(["cmp", device, disk]);
});

test.run();
