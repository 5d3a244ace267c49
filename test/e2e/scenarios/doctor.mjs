/** blksnapctl doctor: its findings on a healthy host, and its fixes after crashes. */
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { memoryTarget, UblkControl, UblkDevice } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { ownerTag } from "../../../packages/driver/dist/records/state-directory.js";
import { DeviceMark } from "../../../packages/ublk/dist/recoverable-device.js";
import { run, start } from "../lib/command.mjs";
import { ctlProgram } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { untilOpen } from "../lib/open-files.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const LIMIT_MS = 300_000;
const STATE = "/run/blksnap/state";
const FOREIGN_SERVER = `
  import { memoryTarget, UblkDevice } from "@blksnap/ublk";
  const device = await UblkDevice.start({ target: memoryTarget({ capacityBytes: 1 << 20 }) });
  console.log(device.id);
`;
const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

async function doctor(...args) {
  const { status, stdout, stderr } = await ctlProgram("doctor", "--json", ...args);
  assert.ok(stdout, stderr);
  const { checks } = JSON.parse(stdout);
  const notOk = checks.filter(({ state }) => state !== "ok");
  assert.is(status, notOk.length === 0 ? 0 : 1);
  return { status, checks, notOk };
}

/** What was found, each as one text. */
const texts = (findings) => findings.map(({ what }) => what);

test(
  "a supervised daemon on a healthy host has no findings; without a daemon, that",
  async (t) => {
    await Daemon.startFor(t, { args: ["--supervise"] });
    let last;
    const isWell = async () => {
      last = await doctor();
      return last.status === 0;
    };
    await until("all is well, the standby too", isWell, LIMIT_MS).catch((error) => {
      throw new Error(`${error.message}: ${JSON.stringify(last.notOk)}`);
    });
    const names = new Set(last.checks.map(({ check }) => check));
    const expected = `kernel_version ublk_module ublk_control ublk_features io_uring node_version
      freeze partitions state_directory socket daemon standby io_flusher locked_memory oom_score swap
      mount_namespace program log device_names lvm_filter flushes uuid_searches ublk_devices links state_files freezes control_api
      version reactors`;
    assert.equal([...names].sort(), expected.split(/\s+/).sort());
    const { stdout } = await ctlProgram("doctor");
    assert.match(stdout, /^ok {7}kernel_version: Linux \d/m);
    await t.daemon.stop();
    const { notOk } = await doctor();
    assert.equal(texts(notOk), ["no daemon runs"]);
  },
  { timeLimitMs: 600_000 },
);

test(
  "--fix removes what is ours and forgotten, and touches nothing else",
  async (t) => {
    const control = await UblkControl.open();
    t.defer(() => control.close());
    // Others' devices: one that is served, one whose server was killed.
    const served = await UblkDevice.start({ target: memoryTarget({ capacityBytes: MIB }) });
    t.defer(() => served.stop());
    const deadId = await killedForeignDevice(t, control);

    await Daemon.startFor(t);
    const [recorded, forgotten] = await ramDisks(t, 2, 8 * MIB);
    const { front: waiting } = await t.client.attach(recorded);
    const { front: lost } = await t.client.attach(forgotten);
    const user = start(["sh", "-c", `exec sleep infinity 3<${lost}`], {
      timeLimitMs: 900_000,
    });
    t.defer(() => user.end());
    t.defer(() => user.kill("SIGKILL"));
    await untilOpen(user.pid, lost);
    const isSleep = () => readFileSync(`/proc/${user.pid}/comm`, "utf8") === "sleep\n";
    await until("the shell has become the program", isSleep);
    t.daemon.kill("SIGKILL");
    await t.daemon.ended();
    for (const name of ["tracker-2.record", "tracker-2.record-copy"]) rmSync(join(STATE, name));
    const halfMade = await control.addDevice({
      id: -1,
      queues: 1,
      queueDepth: 4,
      maxIoBytes: 4096,
      features: 0,
      serverFlags: DeviceMark.FRONT,
      serverFlagsHigh: ownerTag(STATE),
    });
    mkdirSync("/dev/blksnap", { recursive: true });
    symlinkSync("../ublkb99", "/dev/blksnap/stale");

    const expected = [
      "no daemon runs",
      `${waiting} waits for a daemon`,
      `${lost} waits without a record, and is in use: sleep (pid ${user.pid})`,
      `/dev/ublkb${halfMade.id} belongs to blksnap and has ended`,
      "/dev/blksnap/stale does not lead to a device of blksnap",
      `${STATE}/cbt-2 belongs to no record`,
    ];
    const isQuiesced = async () => (await control.deviceInfo(Number(lost.slice(10)))).state === 2;
    await until("the kernel has noticed the death", isQuiesced, LIMIT_MS);
    const found = texts((await doctor()).notOk);
    for (const what of expected) {
      assert.ok(found.includes(what), `${what}; found ${found.join("; ")}`);
    }
    const first = await doctor("--fix");
    assert.ok(existsSync(lost), "in use, and so not removed");
    assert.not.ok(existsSync(`/sys/class/ublk-char/ublkc${halfMade.id}`));
    assert.not.ok(existsSync(join(STATE, "cbt-2")));
    assert.equal(texts(first.notOk), expected.slice(0, 3));

    user.kill("SIGKILL");
    await user.end();
    await doctor("--fix");
    await until("the forgotten front is gone", () => !existsSync(lost));
    assert.equal(texts((await doctor("--fix")).notOk), expected.slice(0, 2));
    assert.is((await control.deviceInfo(deadId))?.serverFlags, 0, "others' devices are there");
    await run(["dd", `if=${served.path}`, "of=/dev/null", "bs=1M"]);

    await Daemon.startFor(t, { name: "next" });
    assert.is((await t.client.status()).trackers[0].front, waiting);
    await t.client.detach(recorded);
    await t.daemon.stop();
  },
  { timeLimitMs: 900_000 },
);

/**
 * The number of a device that another program has made, and whose server was killed; removed after the test. The node of
 * the device is there while the kernel still reads its partitions: killed then, the kernel's log has errors.
 */
async function killedForeignDevice(t, control) {
  const logPath = join(t.folder, "foreign-server");
  t.defer(() => rmSync(logPath, { force: true }));
  const server = start([process.execPath, "--input-type=module", "-e", FOREIGN_SERVER], {
    cwd: new URL("../../..", import.meta.url).pathname,
    logPath,
  });
  const told = () => /^(\d+)\n/.exec(readFileSync(logPath, "utf8"))?.[1];
  const id = Number(await until("the other server's device is there", told, LIMIT_MS));
  t.defer(() => control.deleteDevice(id));
  server.kill("SIGKILL");
  await server.end();
  return id;
}

test.run();
