/** blksnapctl mount and umount: the files of an image beside its original, which has the same superblock. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, MIB } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { sampledIn: 2 });
const SIZES = { ext4: 32 * MIB, xfs: 320 * MIB };

async function ok(...args) {
  const { status, stdout, stderr } = await ctl(...args);
  assert.is(status, 0, `${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function refused(pattern, ...args) {
  const { status, stderr } = await ctl(...args);
  assert.ok(status === 1 || status === 2, args.join(" "));
  assert.match(stderr, pattern, args.join(" "));
}

for (const type of ["ext4", "xfs"]) {
  test(`an image of ${type} is mounted, and refuses what it should`, async (t) => {
    const [disk] = await ramDisks(t, 1, SIZES[type]);
    const { front } = await attach(t, disk);
    await makeFileSystem(type, front);
    const { path } = await mount(t, front);
    writeFileSync(join(path, "file"), "before");
    const { id } = await createSnapshot(t, [disk]);
    await t.client.snapshotTake(id);
    writeFileSync(join(path, "file"), "after");
    const { image } = await t.client.snapshotInfo(disk);
    const dir = join(t.folder, t.name("image-"));
    mkdirSync(dir);
    t.defer(async () => {
      await attempt(["umount", "--quiet", dir]);
      rmdirSync(dir);
    });

    const told = JSON.parse(
      await ok("mount", "--device", disk, "--id", id.slice(0, 8), dir, "--json"),
    );
    assert.equal([told.image, told.dir, told.type, told.options[0]], [image, dir, type, "ro"]);
    assert.is(readFileSync(join(dir, "file"), "utf8"), "before");
    assert.throws(() => writeFileSync(join(dir, "new"), ""), /EROFS/);
    await refused(/is mounted at/, "mount", image, dir);
    await ok("umount", dir);
    assert.not(existsSync(join(dir, "file")));
    await refused(/nothing is mounted at/, "umount", dir);

    await ok("mount", image, dir, "--writable");
    writeFileSync(join(dir, "new"), "");
    await ok("umount", dir);
    assert.not(existsSync(join(path, "new")));

    await refused(/the front of/, "mount", front, dir);
    await refused(/no image of a snapshot/, "mount", disk, dir);
    await refused(/is not a folder/, "mount", image, join(dir, "missing"));
    await refused(/is not a block device/, "mount", join(path, "file"), dir);
    await refused(/the front of/, "umount", path);
  });
}

test("an image that refuses writes is mounted, and an empty one is refused", async (t) => {
  const [disk, other] = await ramDisks(t, 2, SIZES.ext4);
  const { front } = await attach(t, disk);
  const { front: bare } = await attach(t, other);
  await makeFileSystem("ext4", front);
  const { path } = await mount(t, front);
  writeFileSync(join(path, "file"), "kept");
  await run(["sync", "-f", path]);
  const stores = ["memory:"];
  const create = { devices: [disk, other], stores, limitBytes: 64 * MIB, readOnlyImages: true };
  const { id } = await t.client.snapshotCreate(create);
  t.defer(() => t.client.snapshotDestroy(id));
  await t.client.snapshotTake(id);
  const { image } = await t.client.snapshotInfo(disk);
  const dir = join(t.folder, t.name("image-"));
  mkdirSync(dir);
  t.defer(async () => {
    await attempt(["umount", "--quiet", dir]);
    rmdirSync(dir);
  });
  await refused(/refuses writes/, "mount", image, dir, "--writable");
  await ok("mount", image, dir);
  assert.is(readFileSync(join(dir, "file"), "utf8"), "kept");
  await ok("umount", dir);
  await refused(/no file system is found/, "mount", "--device", bare, dir);
});

test.run();
