/** The daemon's own life: when it ends, when it refuses to, and who else may run. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { Daemon } from "../lib/daemon.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: { args: [] } });

/** A place of its own for another daemon's socket and maps. */
function ownPlace(t) {
  const folder = join(t.folder, t.name("daemon-"));
  mkdirSync(folder);
  t.defer(() => rmSync(folder, { recursive: true }));
  const socketPath = join(folder, "socket");
  return { socketPath, args: ["--state-dir", join(folder, "state")] };
}

test("SIGTERM is refused while a front is mounted, and the log says which", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  for (const signal of ["SIGTERM", "SIGINT"]) {
    t.daemon.kill(signal);
    const refusal = `${signal} refused: in use: ${front} (${device})`;
    await until(`the log says "${refusal}"`, () => t.daemon.log().includes(refusal));
  }
  assert.is((await t.client.status()).trackers.length, 1);
  await mounted.unmount();
});

test("a second daemon is refused: same socket, or same maps", async (t) => {
  const { args, socketPath } = ownPlace(t);
  for (const options of [{ args }, { socketPath }]) {
    const second = new Daemon({ ...options, name: "second" });
    const { status } = await second.ended();
    assert.is(status, 1);
    assert.match(second.log(), /^blksnapd: (a daemon is already|another blksnapd).*\. .+$/m);
  }
  assert.ok(await t.client.status(), "the first one goes on");
});

test("what a killed daemon left keeps no new one from starting", async (t) => {
  const place = ownPlace(t);
  const first = await Daemon.start({ ...place, name: "killed" });
  first.kill("SIGKILL");
  await first.ended();
  const next = await Daemon.start({ ...place, name: "next" });
  await next.stop();
});

test("the end of the daemon detaches what nobody uses", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const daemon = await Daemon.start({ ...ownPlace(t), name: "ending" });
  await daemon.client.attach(device);
  const { id } = await daemon.client.snapshotCreate({
    devices: [device],
    stores: ["memory:"],
    limitBytes: 4 * MIB,
  });
  await daemon.client.snapshotTake(id);
  await daemon.stop();
});

test.run();
