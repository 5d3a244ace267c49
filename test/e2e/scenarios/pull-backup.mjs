/**
 * Backups over NBD by programs of others: a full copy by nbdcopy, then increments of what nbdinfo calls dirty, read by
 * qemu-img. Each equals the original at the take, whose file system is frozen meanwhile, so the truth is not ours.
 */
import { closeSync, openSync, readFileSync, rmSync, truncateSync, writeSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { attempt, run } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { imageFile, loopDisk } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { endFio, startLoad } from "../lib/fio.mjs";
import { canUpdateSize, untilSize } from "../lib/kernel-growth.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const SIZE_BYTES = 48 * MIB;
const GROWN_BYTES = 64 * MIB;
const BLOCK_BYTES = 65_536;
const LOAD_FILE_BYTES = 4 * MIB;
/** Of a dirty bitmap, and of base:allocation. */
const DIRTY = 1;
const ZERO = 2;

/** A file system with a writer of one of its files, which a freeze holds up. */
class Volume {
  #t;
  #front;
  #mounted;
  #load;

  constructor(t, device, front) {
    this.#t = t;
    this.device = device;
    this.#front = front;
  }

  get path() {
    return this.#mounted.path;
  }

  /** Makes it anew. */
  async begin() {
    await makeFileSystem("zeroed ext4", this.#front);
    this.#mounted = await mount(this.#t, this.#front);
    const options = { rw: "randwrite", size: LOAD_FILE_BYTES, direct: 1, allow_file_create: 1 };
    const where = { device: this.device };
    this.#load = await startLoad(this.#t, join(this.path, "load"), options, where);
  }

  async end() {
    await endFio(this.#load);
    await this.#mounted.unmount();
    await checkFileSystem("ext4", this.#front);
  }

  /** Takes a snapshot, and copies the original's bytes of the same instant. */
  async taken(truth) {
    await run(["fsfreeze", "--freeze", this.path]);
    try {
      await run(["dd", `if=${this.device}`, `of=${truth}`, "bs=1M", "iflag=direct", "status=none"]);
      return await takeSnapshot(this.#t, [this.device]);
    } finally {
      await run(["fsfreeze", "--unfreeze", this.path]);
    }
  }
}

async function field(device, name) {
  const { stdout } = await ctl("snapshot_info", "--device", device, "--field", name);
  return stdout.trim();
}

async function extents(uri, context) {
  return JSON.parse(await run(["nbdinfo", "--json", `--map=${context}`, uri]));
}

/** Brings a copy up to date with what is dirty. */
async function pull(uri, copy, dirty) {
  const piece = `${copy}.piece`;
  const file = openSync(copy, "r+");
  for (const { offset, length } of dirty) {
    const from = offset / BLOCK_BYTES;
    const to = from + Math.ceil(length / BLOCK_BYTES);
    const range = [`bs=${BLOCK_BYTES}`, `skip=${from}`, `count=${to}`];
    await run(["qemu-img", "dd", "-f", "raw", "-O", "raw", ...range, `if=${uri}`, `of=${piece}`]);
    const data = readFileSync(piece);
    assert.is(data.length, length);
    writeSync(file, data, 0, length, offset);
  }
  closeSync(file);
  rmSync(piece, { force: true });
}

/** The rows of nbdinfo's table, without what it writes behind them. */
function rows(text) {
  return text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+/).slice(0, 4));
}

/** Each program's view of an image agrees with the original at the take, and with our diff. */
async function assertEqualToAll(t, { uri, truth, device, since }) {
  const converted = `${truth}.converted`;
  t.defer(() => rmSync(converted, { force: true }));
  await run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", uri, truth]);
  await run(["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, converted]);
  await run(["cmp", converted, truth]);
  for (const { offset, length, type } of await extents(uri, "base:allocation")) {
    if ((type & ZERO) === 0) continue;
    const content = readFileSync(truth).subarray(offset, offset + length);
    assert.ok(content.equals(Buffer.alloc(length)), `${length} bytes at ${offset} are no zeroes`);
  }
  if (since === undefined) return;
  const context = `qemu:dirty-bitmap:since-${since}`;
  const ours = await ctl("diff", "-d", device, "--since", String(since), "--format", "nbd");
  assert.equal(rows(ours.stdout), rows(await run(["nbdinfo", `--map=${context}`, uri])));
}

/** What happens to the file system before each increment. */
const BETWEEN = [
  async ({ path }) => run(["dd", "if=/dev/urandom", "of=new", "bs=1M", "count=6"], { cwd: path }),
  async ({ path }) => {
    await run(["rm", "new"], { cwd: path });
    await run(["fstrim", path]);
  },
  async (volume) => {
    await volume.end();
    await volume.begin();
  },
  async ({ path }) => run(["cp", "load", "copy"], { cwd: path }),
  async () => undefined,
];

/** One point: the copy is brought up to date, and all is compared. @returns dirtyBytes: undefined of a full copy */
async function backUp(t, volume, copy, last) {
  const truth = join(t.folder, t.name("truth-"));
  t.defer(() => rmSync(truth, { force: true }));
  const { destroy } = await volume.taken(truth);
  const { device } = volume;
  const uri = await field(device, "nbd_uri");
  const { changes_number: number, generation_id: generation } = await t.client.cbtInfo(device);
  const isNext = last?.generation === generation;
  let dirtyBytes;
  if (isNext) {
    const all = await extents(uri, `qemu:dirty-bitmap:since-${last.number}`);
    const dirty = all.filter(({ type }) => (type & DIRTY) !== 0);
    dirtyBytes = dirty.reduce((sum, { length }) => sum + length, 0);
    await pull(uri, copy, dirty);
  } else {
    if (last !== undefined) {
      const context = `qemu:dirty-bitmap:since-${last.number}`;
      const { status } = await attempt(["nbdinfo", `--map=${context}`, uri]);
      assert.is.not(status, 0, "a bitmap from another generation");
    }
    await run(["nbdcopy", uri, copy]);
  }
  await run(["cmp", copy, truth]);
  await assertEqualToAll(t, { uri, truth, device, since: isNext ? last.number : undefined });
  await destroy();
  return { number, generation, dirtyBytes };
}

test("full, five increments under a writer, with fstrim, mkfs and growth between, each equal to the original at its take", async (t) => {
  const disk = imageFile(t, SIZE_BYTES);
  const device = await loopDisk(t, SIZE_BYTES, { file: disk });
  const { front, detach } = await attach(t, device);
  const copy = join(t.folder, "copy");
  t.defer(() => rmSync(copy, { force: true }));
  const volume = new Volume(t, device, front);
  await volume.begin();
  let last = await backUp(t, volume, copy);
  for (const between of BETWEEN) {
    await between(volume);
    last = await backUp(t, volume, copy, last);
    assert.ok(last.dirtyBytes > 0);
  }
  // mkfs and fstrim discard nearly all; between the last two points there was the writer alone.
  assert.ok(last.dirtyBytes < SIZE_BYTES / 2, `${last.dirtyBytes} bytes`);
  if (canUpdateSize) {
    truncateSync(disk, GROWN_BYTES);
    await run(["losetup", "--set-capacity", device]);
    await untilSize(front, GROWN_BYTES);
    await run(["resize2fs", front]);
    last = await backUp(t, volume, copy, last);
    assert.is(last.dirtyBytes, undefined, "growth begins a generation");
    await run(["dd", "if=/dev/urandom", "of=behind", "bs=1M", "count=20"], { cwd: volume.path });
    last = await backUp(t, volume, copy, last);
    assert.ok(last.dirtyBytes > 0);
  } else note("this kernel cannot resize ublk devices: no growth between");
  await volume.end();
  await detach();
});

test.run();
