/** export and restore: each point equals its image, and its file system is consistent. */
import {
  closeSync,
  createReadStream,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { exportStream, restoreStream } from "../../../packages/backup/dist/index.js";
import { run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { stoppingSink } from "../lib/stopping-sink.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 24 * MIB;

async function ok(...words) {
  const { status, stdout, stderr } = await ctl(...words);
  assert.is(status, 0, `${words.join(" ")}: ${stderr}${stdout}`);
  return stdout;
}

/** A folder on the file system of the tests, removed at the end with all that is in it. */
function folder(t) {
  const path = join(t.folder, t.name("backup-"));
  mkdirSync(path);
  t.defer(() => rmSync(path, { recursive: true }));
  return path;
}

/** Exports a snapshot, and keeps its image for a comparison. */
async function exported(t, { device, store, into, name }) {
  const { images, destroy } = await takeSnapshot(t, [device]);
  const out = await ok("export", "-d", device, "--to", store, "--auto", "--json");
  const done = JSON.parse(out.trimEnd().split("\n").at(-1));
  const image = join(into, name);
  await run(["cp", "--sparse=always", images[0], image]);
  await destroy();
  return { ...done, image };
}

/** A write that is only in the page cache: the device stays open, so that no close flushes it. */
function writeBuffered(t, device, offsetBytes) {
  const file = openSync(device, "r+");
  let isOpen = true;
  const close = () => {
    if (isOpen) closeSync(file);
    isOpen = false;
  };
  t.defer(close);
  writeSync(file, Buffer.alloc(512, 0xa5), 0, 512, offsetBytes);
  return close;
}

test("full and incremental points are restored equal to their images, with consistent file systems", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const into = folder(t);
  const store = join(into, "store");
  await makeFileSystem("zeroed ext4", front);
  const { path, unmount } = await mount(t, front);
  await run([
    "dd",
    "if=/dev/urandom",
    `of=${join(path, "one")}`,
    "bs=1M",
    "count=8",
    "status=none",
  ]);
  const first = await exported(t, { device, store, into, name: "first" });
  assert.is(first.kind, "full");
  // Ranges that were never written are holes of the file behind the loop device, and are not read.
  const { read_bytes } = first;
  assert.ok(read_bytes >= 8 * MIB && read_bytes < SIZE_BYTES, `${read_bytes} bytes read`);
  writeFileSync(join(path, "two"), "changed since");
  await run([
    "dd",
    "if=/dev/urandom",
    `of=${join(path, "one")}`,
    "bs=64k",
    "count=3",
    "status=none",
  ]);
  const second = await exported(t, { device, store, into, name: "second" });
  assert.is(second.kind, "incremental");
  assert.ok(second.read_bytes < SIZE_BYTES / 2, `${second.read_bytes} bytes read`);
  await unmount();
  for (const { id, image } of [first, second]) {
    const target = `${image}.restored`;
    await ok("restore", "--from", store, "--at", id, "--to", target);
    await run(["cmp", image, target]);
    await checkFileSystem("ext4", target);
  }
  const disk = await loopDisk(t, SIZE_BYTES + MIB);
  await ok("restore", "--from", store, "--to", disk);
  await run(["cmp", "--bytes", String(SIZE_BYTES), second.image, disk]);
  await ok("restore", "--from", store, "--at", first.id, "--to", disk, "--delta");
  await run(["cmp", "--bytes", String(SIZE_BYTES), first.image, disk]);
  assert.match(await ok("verify", "--from", store), "verified: 2 points");
});

test("an export takes its own snapshot, a raw copy equals the device, and invalid targets are refused", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const into = folder(t);
  const own = ["-f", into, "-l", "64M"];
  const disk = await loopDisk(t, SIZE_BYTES);
  const raw = ["export", "-d", device, "--to", disk, "--raw", "--record", join(into, "record")];
  await makeFileSystem("zeroed ext4", front);
  assert.match(await ok(...raw, ...own, "--auto"), "full: ");
  await run(["cmp", device, disk]);
  const { path, unmount } = await mount(t, front);
  const refused = async (code, words) => {
    const { status, stderr } = await ctl(...words);
    assert.is(status, 1, words.join(" "));
    assert.match(stderr, `[${code}]`);
  };
  const onto = (target, ...more) => ["export", "-d", device, "--to", target, ...own, ...more];
  await refused("TARGET_ON_DEVICE", onto(join(path, "store")));
  await refused("TARGET_ON_DEVICE", onto(device, "--raw"));
  await refused("TARGET_ON_DEVICE", onto(front, "--raw"));
  writeFileSync(join(path, "file"), "changed since");
  // Mounted, and frozen at take: its journal is empty, and its bitmaps are correct.
  const allocated = join(into, "allocated");
  const words = ["export", "-d", device, "--to", allocated, "--raw", "--allocated-only", ...own];
  assert.match(await ok(...words), "full: ");
  await checkFileSystem("ext4", allocated);
  assert.is(await run(["debugfs", "-R", "cat /file", allocated]), "changed since");
  await unmount();
  assert.match(await ok(...raw, ...own, "--auto"), "incremental: ");
  await run(["cmp", device, disk]);
  // A foreign write outside of file-system metadata and samples.
  const close = writeBuffered(t, disk, SIZE_BYTES - 3 * MIB + 1024 * 512);
  assert.match(await ok(...raw, ...own, "--auto"), /another program has written.*\nfull: /);
  close();
  await run(["cmp", device, disk]);
  const mounted = await mount(t, disk);
  await refused("TARGET_IN_USE", [...raw, ...own]);
  await mounted.unmount();
  const small = await loopDisk(t, SIZE_BYTES - MIB);
  await refused("TARGET_TOO_SMALL", onto(small, "--raw"));
  assert.equal(await t.client.snapshotCollect(), []);
});

test("an export frees what it has read: its slots are reused, and writes there copy nothing", async (t) => {
  const device = await loopDisk(t, 4 * SIZE_BYTES);
  const { front } = await attach(t, device);
  const overwrite = async (source, offsetBytes, lengthBytes) => {
    const place = [`seek=${offsetBytes / MIB}`, `count=${lengthBytes / MIB}`, "iflag=fullblock"];
    const words = [`if=${source}`, `of=${front}`, "bs=1M", "oflag=direct", "conv=notrunc"];
    await run(["dd", ...words, ...place, "status=none"]);
  };
  const into = folder(t);
  await overwrite("/dev/urandom", 0, 4 * SIZE_BYTES);
  const before = join(into, "before");
  await run(["cp", device, before]);
  const stream = join(into, "stream");
  const { sink, resume } = stoppingSink(stream, 2 * SIZE_BYTES);
  const own = { client: t.client, device, stores: [into], limitBytes: 256 * MIB };
  const record = join(into, "record");
  const exporting = exportStream({
    ...own,
    wanted: { kind: "full" },
    freesMinBytes: 0,
    record,
    sink,
  });
  exporting.catch(() => undefined);
  const used = async () => (await t.client.status()).snapshots[0]?.devices[0];
  const isFreed = async () => (await used())?.image_io.discard_bytes >= SIZE_BYTES;
  await until("what is sent is freed", isFreed);
  await overwrite("/dev/zero", 0, SIZE_BYTES);
  assert.is((await used()).copied_bytes, 0);
  // Not read yet: the old data is kept, and freed when it is read.
  await overwrite("/dev/zero", 3 * SIZE_BYTES, SIZE_BYTES);
  assert.is((await used()).chunks_used, (SIZE_BYTES / MIB) * 4);
  const other = await ctl("export", "-d", device, "--to", join(into, "store"));
  assert.is(other.status, 1);
  assert.match(other.stderr, "of another export");
  resume();
  await exporting;
  const copy = join(into, "copy");
  await restoreStream({ input: createReadStream(stream), target: copy });
  await run(["cmp", before, copy]);
  assert.equal(await t.client.snapshotCollect(), []);
});

test("the guide's script for own backup programs makes a full and an incremental copy", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front } = await attach(t, device);
  const into = folder(t);
  const copy = join(into, "copy");
  const backUp = async () => {
    const path = `${process.cwd()}/node_modules/.bin:${process.env.PATH}`;
    const env = { LIMIT: "64M", VERIFY: "1", PATH: path };
    const text = await run(["docs/examples/incremental-backup.sh", device, copy, into], { env });
    await run(["cmp", device, copy]);
    return text;
  };
  const fill = (first) =>
    run([
      "dd",
      "if=/dev/urandom",
      `of=${front}`,
      "bs=1M",
      `seek=${first}`,
      "count=2",
      "oflag=direct",
    ]);
  await fill(4);
  assert.match(await backUp(), new RegExp(`^full: ${SIZE_BYTES} bytes[^]*verified: `));
  await fill(9);
  assert.match(await backUp(), `incremental: ${2 * MIB} bytes in 1 ranges, snapshots 1 to 2`);
});

test("an image that was written to is refused, even if the write is only in the page cache", async (t) => {
  const device = await loopDisk(t, SIZE_BYTES);
  await attach(t, device);
  const { images } = await takeSnapshot(t, [device], { readOnlyImages: false });
  writeBuffered(t, images[0], MIB);
  const to = join(folder(t), "store");
  const { status, stderr } = await ctl("export", "-d", device, "--to", to);
  assert.is(status, 1);
  assert.match(stderr, "was written to");
});

test.run();
