/** The kernel's own NBD client, which makes block devices of the exports of `--frontend nbd`. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { parseNbdUri } from "../../../packages/nbd/dist/index.js";
import { attempt, run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario, skip } from "../lib/scenario.mjs";
import { attach, MIB, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false });
const SIZE_BYTES = 32 * MIB;

/** Why this kernel is no such client; undefined: it is one. */
async function whatIsMissing() {
  const module = await attempt(["modprobe", "nbd", "nbds_max=2"]);
  return existsSync("/sys/block/nbd1") ? undefined : `no kernel module nbd: ${module.stderr}`;
}

/** Has the kernel connect to an export. */
async function connectKernel(t, uri, device, ...more) {
  const { socketPath, exportName } = parseNbdUri(uri);
  await run(["nbd-client", "-unix", socketPath, device, "-name", exportName, ...more]);
  let isConnected = true;
  async function disconnect() {
    if (!isConnected) return;
    isConnected = false;
    await run(["nbd-client", "-d", device]);
    await until(`${device} is free`, async () => {
      const { status } = await attempt(["nbd-client", "-c", device]);
      return status !== 0;
    });
  }
  t.defer(disconnect);
  return disconnect;
}

/** The daemon does not see the file system, so the caller of the take freezes it. */
async function takenFrozen(t, disk, path) {
  await run(["fsfreeze", "--freeze", path]);
  try {
    return await takeSnapshot(t, [disk]);
  } finally {
    await run(["fsfreeze", "--unfreeze", path]);
  }
}

test("the kernel writes to a front over NBD, and reads the image of it", async (t) => {
  const missing = await whatIsMissing();
  if (missing !== undefined) {
    assert.not.ok(process.env.CI, missing);
    skip(missing);
  }
  const disk = imageFile(t, SIZE_BYTES);
  t.daemon = await Daemon.start({ args: ["--frontend", "nbd"] });
  t.defer(() => t.daemon.stop());
  const { front, detach } = await attach(t, disk);
  const disconnect = await connectKernel(t, front, "/dev/nbd0");
  await makeFileSystem("ext4", "/dev/nbd0");
  const mounted = await mount(t, "/dev/nbd0");
  const file = join(mounted.path, "file");
  writeFileSync(file, Buffer.alloc(4 * MIB, "before"));
  const { images, destroy } = await takenFrozen(t, disk, mounted.path);
  writeFileSync(file, Buffer.alloc(4 * MIB, "after"));
  await run(["fstrim", mounted.path]);

  const disconnectImage = await connectKernel(t, images[0], "/dev/nbd1", "-readonly");
  await checkFileSystem("ext4", "/dev/nbd1");
  const image = await mount(t, "/dev/nbd1", ["ro"]);
  assert.ok(readFileSync(join(image.path, "file")).equals(Buffer.alloc(4 * MIB, "before")));
  await image.unmount();
  await disconnectImage();
  assert.ok(readFileSync(file).equals(Buffer.alloc(4 * MIB, "after")));
  await mounted.unmount();
  await checkFileSystem("ext4", "/dev/nbd0");
  await disconnect();
  await until("the snapshot ends", () =>
    destroy().then(
      () => true,
      () => false,
    ),
  );
  await until("the front is free", () =>
    detach().then(
      () => true,
      () => false,
    ),
  );
});

test.run();
