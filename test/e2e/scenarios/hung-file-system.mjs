/** A store's file system that hangs instead of failing, as one on a network does: it holds threads of the kernel. */
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, DeviceFile } from "../lib/device-file.mjs";
import { imageFile, ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { startFio } from "../lib/fio.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, memberStatus, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const STORE_BYTES = 160 * MIB;
/** Of the original that is written to. */
const SIZE_BYTES = 8 * MIB;
const CHUNK_BYTES = 256 * 1024;
const WRITE_BYTES = 4096;

test("while a store's file system hangs, flushes of other devices continue", async (t) => {
  const [original, below] = await ramDisks(t, 2, STORE_BYTES);
  await makeFileSystem("ext4", below);
  const { path } = await mount(t, below);
  // One reactor for both, and a bound that does not pass by itself.
  await Daemon.startFor(t, { args: ["--reactors", "1", "--io-timeout", "600000"] });
  const hanging = await attach(t, original);
  const healthy = await attach(t, imageFile(t, SIZE_BYTES));
  const options = { stores: [path], limitBytes: 64 * MIB };
  const snapshot = await takeSnapshot(t, [original], options);
  await run(["fsfreeze", "--freeze", path]);
  t.defer(() => run(["fsfreeze", "--unfreeze", path]).catch(() => undefined));
  // Each copy holds a thread of the kernel; it starts four for each CPU by itself.
  const load = { ioengine: "io_uring", direct: 1, iodepth: 32, rw: "write:252k", bs: "4k" };
  const hung = startFio(t, hanging.front, {
    ...load,
    size: SIZE_BYTES,
    io_size: 32 * WRITE_BYTES,
  });
  await until("the copies are on their way", async () => {
    const { chunks_used: used } = await memberStatus(t, snapshot.id, original);
    return used === SIZE_BYTES / CHUNK_BYTES;
  });
  // A flush needs a thread, too.
  const file = await DeviceFile.open(t, healthy.front);
  await file.write(alignedBuffer(WRITE_BYTES).fill(1), 0);
  await file.sync();
  await file.close();
  assert.is((await memberStatus(t, snapshot.id, original)).copied_bytes, 0);
  await run(["fsfreeze", "--unfreeze", path]);
  await hung.succeed();
  assert.is((await memberStatus(t, snapshot.id, original)).lost_bytes, 0);
  await snapshot.destroy();
  await hanging.detach();
  await healthy.detach();
});

test.run();
