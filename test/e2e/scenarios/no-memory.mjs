/** ENOMEM: the daemon's own memory for maps is full. It says so, serves on, and loses nothing. */
import { join } from "node:path";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { imageFile } from "../lib/disks.mjs";
import { refused } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, createSnapshot, GIB, MIB } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url, { daemon: false });
const ENOMEM = 12;

test("attach and snapshot_take: ENOMEM, no room for the maps", async (t) => {
  const state = join(t.folder, "state");
  await run(["mkdir", state]);
  t.defer(() => run(["rmdir", state]));
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", state]);
  t.defer(() => run(["umount", state]));
  t.daemon = await Daemon.start({ args: ["--state-dir", state] });
  t.defer(() => t.daemon.stop());
  // Some bytes for each 64 KiB of a device, and 16 for each 256 KiB once it is in a snapshot.
  const huge = imageFile(t, 64 * GIB);
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.attach(huge));
  const large = imageFile(t, 4 * GIB);
  await attach(t, large);
  const { id, destroy } = await createSnapshot(t, [large]);
  await run(["dd", "if=/dev/zero", `of=${state}/filler`, "bs=64k", "count=11"]);
  t.defer(() => run(["rm", `${state}/filler`]));
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.snapshotTake(id));
  await refused(t, "OUT_OF_MEMORY", ENOMEM, () => t.client.attach(huge));
  await destroy();
  const small = imageFile(t, MIB);
  await attach(t, small);
});

test.run();
