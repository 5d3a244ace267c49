/** The daemon's life cycle: when it ends, when it refuses to, and which others may run. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BlksnapClient } from "@blksnap/client";
import { receiveDatagrams } from "@blksnap/testing";
import * as assert from "uvu/assert";
import { Daemon } from "../lib/daemon.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const START_LIMIT_MS = 300_000;
const METRICS_SOCKET = "/run/blksnap-metrics.sock";
const test = scenario(import.meta.url, {
  daemon: { args: ["--metrics-socket", METRICS_SOCKET] },
});

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

test("the metrics socket serves only metrics", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  await attach(t, device);
  const watcher = new BlksnapClient({ socketPath: METRICS_SOCKET });
  assert.match(await watcher.metrics(), `blksnap_front_live{device="${device}"} 1`);
  const error = await watcher.status().catch((thrown) => thrown);
  assert.instance(error, Error);
});

test("a second daemon is refused: same socket, or same maps", async (t) => {
  const { args, socketPath } = ownPlace(t);
  const sameSocket = new Daemon({ args, name: "same-socket" });
  const sameMaps = new Daemon({ socketPath, name: "same-maps" });
  for (const second of [sameSocket, sameMaps]) {
    assert.is((await second.ended()).status, 1);
    assert.match(second.log(), /^blksnapd: (a daemon is already|another blksnapd).*\. .+$/m);
  }
  assert.ok(await t.client.status(), "the first one continues");
});

test("after a killed daemon another starts, and its end detaches unused devices", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const place = ownPlace(t);
  const killed = await Daemon.start({ ...place, name: "killed" });
  killed.kill("SIGKILL");
  await killed.ended();
  const next = await Daemon.start({ ...place, name: "next" });
  await next.client.attach(device);
  const { id } = await next.client.snapshotCreate({
    devices: [device],
    stores: ["memory:"],
    limitBytes: 4 * MIB,
  });
  await next.client.snapshotTake(id);
  await next.stop();
});

test("configured devices are attached at start; an invalid configuration starts nothing", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const { args, socketPath } = ownPlace(t);
  const config = join(t.folder, t.name("config-"));
  t.defer(() => rmSync(config));
  const devices = [device, "/dev/not/there"].map((name) => `[[device]]\ndevice = "${name}"\n`);
  const manager = await receiveDatagrams(`${socketPath}-notify`);
  t.defer(() => manager.close());
  const env = { NOTIFY_SOCKET: `${socketPath}-notify` };
  const own = { args: [...args, "--config", config], socketPath, name: "configured", env };
  writeFileSync(config, `${devices.join("wait-seconds = 0\n")}wait-secs = 0\n`);
  const refused = new Daemon(own);
  assert.is((await refused.ended()).status, 2);
  assert.match(refused.log(), "there is no key 'wait-secs' here. Did you mean wait-seconds?");
  writeFileSync(config, `${devices.join("wait-seconds = 0\n")}wait-seconds = 0\n`);
  const daemon = await Daemon.start(own);
  await until("both are said to be attached or not", () => {
    const text = daemon.log();
    return (
      /configured device is attached/.test(text) && /there.*configured device is not/.test(text)
    );
  });
  const { trackers } = await daemon.client.status();
  assert.equal(
    trackers.map((tracker) => tracker.device),
    [device],
  );
  await until("systemd is notified", () => manager.received.length === 1);
  daemon.kill("SIGKILL");
  await daemon.ended();
  writeFileSync(config, "wrong\n");
  const next = await Daemon.start(own);
  const after = await next.client.status();
  assert.equal(
    after.trackers.map((tracker) => tracker.device),
    [device],
    "a waiting front is served with the earlier configuration",
  );
  const [mistake, ...others] = after.daemon.configuration.mistakes;
  assert.match(mistake, `${config}:1: this is not TOML`);
  assert.equal(others, []);
  await until("systemd is notified again", () => manager.received.length === 2);
  await next.stop();
  await until("systemd is notified of the end", () => manager.received.length === 3);
  const ready = "READY=1\nSTATUS=serves";
  assert.equal(manager.received, [ready, ready, "STOPPING=1"]);
  assert.not(existsSync(join(args[1], "served.json")), "nothing is left to continue with");
});

test("a daemon that is stopped before its first request ends cleanly", async (t) => {
  const daemon = new Daemon({ ...ownPlace(t), name: "early" });
  await until("its socket is there", () => existsSync(daemon.client.socketPath), START_LIMIT_MS);
  await daemon.stop();
});

test.run();
