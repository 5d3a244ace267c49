/** A daemon that hands its devices over to the next one: upgrade, and stop --keep. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run, start } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { endFio, startFio, VERIFIED_WRITES } from "../lib/fio.mjs";
import { untilOpen } from "../lib/open-files.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_MIB = 48;
const LOAD_LIMIT_S = 1200;
const LOG_LIMIT_MS = 300_000;
const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

/** Runs a command of blksnapctl that must succeed, and parses its JSON. */
async function ctlJson(...args) {
  const { status, stdout, stderr } = await ctl(...args, "--json");
  assert.is(status, 0, stderr);
  return JSON.parse(stdout);
}

function verifyingLoad(t, front) {
  return startFio(
    t,
    front,
    { ...VERIFIED_WRITES, runtime: LOAD_LIMIT_S },
    { timeLimitMs: LOAD_LIMIT_S * 1000 },
  );
}

/** Whether requests of the only front pass their pages on. */
async function hasZeroCopy(t) {
  const { trackers } = await t.client.status();
  return trackers[0].zero_copy;
}

async function fillRandomly(t, front) {
  const copy = join(t.folder, t.name("copy-"));
  t.defer(() => rmSync(copy));
  await run(["dd", "if=/dev/urandom", `of=${copy}`, "bs=1M", `count=${SIZE_MIB}`]);
  await run(["dd", `if=${copy}`, `of=${front}`, "bs=1M", "oflag=direct"]);
  return copy;
}

test(
  "daemon upgrade under fio --verify with a snapshot held: no error, the image right",
  async (t) => {
    await Daemon.startFor(t, { args: ["--supervise"] });
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const { front } = await t.client.attach(device);
    const copy = await fillRandomly(t, front);
    const { destroy, images } = await takeSnapshot(t, [device], { stores: [storeFolder(t)] });
    const writing = verifyingLoad(t, front);
    const seen = [(await t.client.status()).daemon.pid];
    for (let time = 0; time < 2; time++) {
      const upgraded = await ctlJson("daemon", "upgrade");
      assert.is(upgraded.from.pid, seen.at(-1));
      assert.is.not(upgraded.to.pid, upgraded.from.pid);
      assert.is(upgraded.started_by, "supervisor");
      assert.ok(upgraded.pause_ms >= 0);
      const { daemon } = await t.client.status();
      assert.is(daemon.pid, upgraded.to.pid);
      assert.is(daemon.handover.pid, upgraded.from.pid);
      console.log(`upgraded with a pause of ${upgraded.pause_ms} ms`);
      seen.push(daemon.pid);
    }
    assert.is(new Set(seen).size, 3);
    await endFio(writing);
    await run(["cmp", images[0], copy]);
    await destroy();
    await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: 900_000 },
);

test("an upgrade without a supervisor is refused, and the daemon continues", async (t) => {
  await Daemon.startFor(t);
  const { pid } = (await t.client.status()).daemon;
  const { status, stdout } = await ctl("daemon", "upgrade", "--json");
  assert.is(status, 1);
  const { error } = JSON.parse(stdout);
  assert.is(error.name, "UPGRADE_UNATTENDED");
  assert.match(error.message, /without --supervise/);
  assert.is((await t.client.status()).daemon.pid, pid);
  await t.daemon.stop();
});

test(
  "daemon stop names who uses what; --keep leaves fronts and images to the next daemon",
  async (t) => {
    await Daemon.startFor(t, { args: ["--supervise"] });
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const { front } = await t.client.attach(device);
    await makeFileSystem("ext4", front);
    const mounted = await mount(t, front);
    await run(["sh", "-c", `cp -r /usr/include/linux ${mounted.path}/ && sync`]);
    const { destroy, images } = await takeSnapshot(t, [device], { stores: [storeFolder(t)] });
    const before = await run(["sh", "-c", `md5sum < ${images[0]}`]);

    const refused = await ctl("daemon", "stop");
    assert.is(refused.status, 1);
    assert.match(refused.stderr, `${front} (${device}): mounted at ${mounted.path}`);
    assert.ok(await t.client.status(), "it continues");

    const { kept } = await ctlJson("daemon", "stop", "--keep");
    assert.equal(kept, [front, images[0]]);
    assert.is((await t.daemon.ended()).status, 0);
    // Sent while no daemon serves: answered when one does.
    const reading = run(["sh", "-c", `md5sum < ${images[0]}`], { timeLimitMs: 300_000 });
    const writing = run(["sh", "-c", `echo later > ${mounted.path}/later && sync`], {
      timeLimitMs: 300_000,
    });
    await Daemon.startFor(t, { args: ["--supervise"], name: "next" });
    assert.is(await reading, before);
    await writing;
    assert.is(typeof (await t.client.status()).daemon.handover.pause_ms, "number");

    await destroy();
    await mounted.unmount();
    await t.client.detach(device);
    await ctlJson("daemon", "stop");
    assert.is((await t.daemon.ended()).status, 0);
  },
  { timeLimitMs: 600_000 },
);

test(
  "blksnapd --keep ends on SIGTERM with its front mounted, and the next one continues",
  async (t) => {
    await Daemon.startFor(t, { args: ["--keep", "--zero-copy", "auto"] });
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const { front } = await t.client.attach(device);
    const zeroCopy = await hasZeroCopy(t);
    await makeFileSystem("ext4", front);
    const mounted = await mount(t, front);
    await t.daemon.stop();
    const writing = run(["sh", "-c", `echo later > ${mounted.path}/later && sync`], {
      timeLimitMs: 300_000,
    });
    assert.ok(existsSync(front), "the front waits");
    await Daemon.startFor(t, { args: ["--zero-copy", "off"], name: "next" });
    await writing;
    assert.is(await hasZeroCopy(t), zeroCopy, "a front keeps what it was made with");
    await mounted.unmount();
    await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "a supervisor that is asked to end asks its daemon; if refused, it keeps a standby as before",
  async (t) => {
    await Daemon.startFor(t, { args: ["--supervise"] });
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const { front } = await t.client.attach(device);
    // Just open: no mount, nothing exclusive.
    const holder = `exec 3<${front}; while :; do sleep 1; done`;
    const reader = start(["sh", "-c", holder], { timeLimitMs: 600_000 });
    t.defer(() => reader.end());
    t.defer(() => reader.kill("SIGKILL"));
    await untilOpen(reader.pid, front);
    const refusal = `SIGTERM refused: in use: ${front} (${device}): sh (pid ${reader.pid})`;
    t.daemon.kill("SIGTERM");
    await until(`the log says "${refusal}"`, () => t.daemon.log().includes(refusal), LOG_LIMIT_MS);
    const { pid } = (await t.client.status()).daemon;
    process.kill(pid, "SIGKILL");
    await until(
      "the next daemon serves",
      async () => {
        const status = await t.client.status().catch(() => undefined);
        return status !== undefined && status.daemon.pid !== pid;
      },
      LOG_LIMIT_MS,
    );
    reader.kill("SIGKILL");
    await reader.end();
    await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: 600_000 },
);

test(
  "the death of a supervisor that systemd restarts is only another handover",
  async (t) => {
    const args = ["--supervise", "--zero-copy", "off"];
    await Daemon.startFor(t, { args, env: { INVOCATION_ID: "e2e" } });
    const [device] = await ramDisks(t, 1, SIZE_MIB * MIB);
    const { front } = await t.client.attach(device);
    const copy = await fillRandomly(t, front);
    const { pid } = (await t.client.status()).daemon;
    t.daemon.kill("SIGKILL");
    await t.daemon.ended();
    await until("its daemon has left", () => !existsSync(`/proc/${pid}`), LOG_LIMIT_MS);
    await Daemon.startFor(t, { args: ["--supervise"], name: "next" });
    assert.is((await t.client.status()).daemon.handover.pid, pid);
    assert.is(await hasZeroCopy(t), false, "a front keeps what it was made with");
    await run(["cmp", front, copy]);
    await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: 600_000 },
);

test.run();
