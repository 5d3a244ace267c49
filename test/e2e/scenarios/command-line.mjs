/** A session on the command line, from attach to detach, as in its help. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { ctl, ctlProgram } from "../lib/ctl.mjs";
import { ctlWords } from "../lib/daemon.mjs";
import { imageFile, loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Runs a command that must succeed and answers its output. */
async function ok(...args) {
  const { status, stdout, stderr } = await ctl(...args);
  assert.is(status, 0, `${args.join(" ")}: ${stderr}`);
  assert.is(stderr, "");
  return stdout;
}

async function okJson(...args) {
  return JSON.parse(await ok(...args, "--json"));
}

test.quick("attach, snapshot, image, change map, destroy, detach", async (t) => {
  const device = await loopDisk(t, 32 * MIB);
  const other = imageFile(t, 8 * MIB);
  const attached = await ctlProgram("attach", "--device", device);
  assert.is(attached.status, 0, attached.stderr);
  const [first, second] = attached.stdout.split("\n");
  assert.is(first, "Attached successfully");
  const front = second.slice("front=".length);
  assert.match(front, /^\/dev\/ublkb\d+$/);
  assert.match(await ok("attach", "-d", device), /^Already was attached\n/);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  writeFileSync(join(mounted.path, "file"), "before");

  const create = [
    ...["snapshot_create", "--device", device, "--device", other],
    ...["--file", storeFolder(t), "--limit", "64M"],
  ];
  // An id that the caller never gets: what was attached for it is detached too.
  await run(["sh", "-c", 'exec "$@" > /dev/full', "sh", ...ctlWords(...create)], { status: 1 });
  assert.is(await ok("snapshot_collect"), "\n");
  const tracked = await t.client.status();
  assert.equal(
    tracked.trackers.map((tracker) => tracker.device),
    [device],
  );
  const created = await ok(...create);
  const id = created.trim();
  assert.match(id, UUID);
  const taken = (await ok("snapshot_take", "--id", id)).split("\n");
  assert.is(await ok("snapshot_collect"), `${id} \n\n`);
  // Either name of a tracked device is taken everywhere.
  const image = (await ok("snapshot_info", "--device", front, "--field", "image")).trim();
  assert.equal(taken.slice(0, 3), [`device=${device}`, `image=${image}`, `device=${other}`]);
  assert.is(await ok("snapshot_info", "--device", device), `error_code=0\nimage=${image}\n`);

  writeFileSync(join(mounted.path, "file"), "after");
  await run(["sync", "-f", mounted.path]);
  const imageMount = await mount(t, image, ["ro"]);
  assert.is(readFileSync(join(imageMount.path, "file"), "utf8"), "before");
  await imageMount.unmount();

  const info = Object.fromEntries(
    (await ok("cbtinfo", "-d", device))
      .trim()
      .split("\n")
      .map((line) => line.split("=")),
  );
  assert.is(info.device_capacity, String(32 * MIB));
  assert.is(info.changes_number, "1");
  const mapPath = join(t.folder, "map");
  await ok("readcbtmap", "-d", device, "-f", mapPath);
  assert.is(readFileSync(mapPath).length, Number(info.block_count));
  rmSync(mapPath);
  await ok("markdirtyblock", "-d", device, "--ranges", "0:8", "128:8");
  const diff = await ok("diff", "-d", device, "--since", "0", "--raw");
  assert.match(diff, /^0:\d+\n/);

  const status = await okJson("status");
  assert.is(status.trackers.length, 2);
  assert.is(status.snapshots[0].id, id);
  assert.match(await ok("status"), /SNAPSHOT/);
  assert.is(await ok("snapshot_waitevent", "--id", id, "--timeout", "0"), "result=timeout\n");
  assert.match(await ok("version"), /^\d+\.\d+\.\d+\.\d+\n$/);

  await ok("snapshot_destroy", "--id", id.slice(0, 8));
  assert.is(await ok("snapshot_collect"), "\n");
  await mounted.unmount();
  for (const path of [device, other]) {
    assert.is(await ok("detach", "--device", path), "Detached successfully\n");
  }
});

for (const type of ["ext4", "xfs"]) {
  test(`diff --files names what changed on an ${type}, and leaves no mount`, async (t) => {
    const device = await loopDisk(t, 512 * MIB);
    const { front } = await attach(t, device);
    await makeFileSystem(type, front);
    const mounted = await mount(t, front);
    writeFileSync(join(mounted.path, "old"), Buffer.alloc(MIB, 1));
    const first = await takeSnapshot(t, [device]);
    await first.destroy();
    mkdirSync(join(mounted.path, "folder"));
    writeFileSync(join(mounted.path, "folder/new one"), Buffer.alloc(MIB, 2));
    const { destroy } = await takeSnapshot(t, [device]);
    // After the take: the image does not have it.
    writeFileSync(join(mounted.path, "newest"), Buffer.alloc(MIB, 3));
    await run(["sync", "-f", mounted.path]);
    const mountsBefore = readFileSync("/proc/self/mountinfo", "utf8");
    const diff = await okJson("diff", "-d", device, "--since=1", "--files");
    const changed = new Map(diff.files.map(({ path, changed_bytes }) => [path, changed_bytes]));
    assert.is(changed.get("/folder/new one"), MIB);
    // It may share a block of the map with the new one.
    assert.ok((changed.get("/old") ?? 0) < MIB, `${changed.get("/old")}`);
    assert.not(changed.has("/newest"));
    assert.ok(diff.outside_files_bytes > 0, "the file system's own");
    assert.match(
      await ok("diff", "-d", device, "--since=1", "--files"),
      /^ *1\.0 MiB +\/folder\/new one$/m,
    );
    assert.is(readFileSync("/proc/self/mountinfo", "utf8"), mountsBefore);
    await destroy();
    await mounted.unmount();
  });
}

test.run();
