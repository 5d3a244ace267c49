import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlError } from "@blksnap/api";
import { DeviceMark, UblkState } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { UblkFrontend } from "../../dist/frontend/ublk-frontend.js";
import { machinePorts } from "../../dist/index.js";
import { OperationLocks } from "../../dist/operations/operation-locks.js";
import type { TrackerRecord } from "../../dist/records/records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { LateRecovery } from "../../dist/recovery/late-recovery.js";
import { identityOf } from "../../dist/system/path-target.js";
import { Tracker } from "../../dist/tracker/tracker.js";

const DEVICE = "/dev/null";
const record = {
  id: 7,
  device: DEVICE,
  identity: await identityOf(DEVICE),
  front: 3,
} as unknown as TrackerRecord;

let folder: string;
let state: StateDirectory;
let logged: string[];
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-late-"));
  state = new StateDirectory(folder);
  state.writeRecord("tracker-7", record);
  writeFileSync(join(folder, "cbt-7"), "");
  logged = [];
});
test.after.each(() => {
  state.close();
  rmSync(folder, { recursive: true });
});

/**
 * A device for which the kernel gives one answer after another; the last one repeats.
 * @param serverFlagsHigh tag of its owner
 */
function start(states: (number | undefined)[], serverFlagsHigh = state.owner) {
  const asked: number[] = [];
  const deleted: number[] = [];
  const ublk = {
    deviceInfo: async (id: number) => {
      asked.push(id);
      const now = states.length > 1 ? states.shift() : states[0];
      const mark = { serverFlags: DeviceMark.FRONT, serverFlagsHigh };
      return now === undefined ? undefined : { id, state: now, ...mark };
    },
    deleteDevice: async (id: number) => deleted.push(id),
  };
  const log = (_: unknown, text: string) => logged.push(text);
  const persistent = { inUse: new Set<string>() };
  const { blockDevices } = machinePorts();
  const logger = { info: log, warn: log };
  const frontend = new UblkFrontend(ublk as never, state.owner, logger as never);
  const context = { frontend, state, persistent, blockDevices, logger };
  const none = () => assert.unreachable("nothing can continue here");
  const late = new LateRecovery(
    context as never,
    { waiting: [{ record, why: "at the start", kept: [] }] },
    locks(),
    none,
    1,
  );
  return { late, asked, deleted };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; !(await condition()); waited++) {
    assert.ok(waited < 200_000, "nothing happened in 200 s");
    await new Promise((done) => setTimeout(done, 1));
  }
}

function locks(): OperationLocks {
  return new OperationLocks({ busy: Error, closed: Error, aborted: Error });
}

async function isWaiting(late: LateRecovery): Promise<boolean> {
  try {
    await late.assertNotWaiting(DEVICE);
    return false;
  } catch (error) {
    assert.is((error as ControlError).code, "DEVICE_BUSY");
    return true;
  }
}

test("the name at attach counts only if it leads to nothing else by now", async () => {
  const told = async (device: string, path: string) => {
    const waiting = [{ record: { ...record, device }, why: "", kept: [] }];
    const { blockDevices } = machinePorts();
    const context = { blockDevices, frontend: { nameOf: () => "/dev/ublkb7" } };
    const late = new LateRecovery(context as never, { waiting }, locks(), () => undefined);
    const answer = await late.assertNotWaiting(path).then(() => "", String);
    late.stop();
    return answer;
  };
  assert.is(await told("/dev/zero", "/dev/zero"), "");
  assert.match(await told("/dev/zero", DEVICE), /still waits/);
  assert.match(await told("/dev/gone", "/dev/gone"), /still waits/);
});

test("recovery is retried until the kernel releases the device, and logs that once", async () => {
  const { late, asked } = start([UblkState.LIVE]);
  await until(() => asked.length > 10);
  assert.ok(await isWaiting(late));
  const [{ record: waiting, why }] = late.waiting;
  assert.is(waiting, record);
  assert.match(why, "/dev/null is not a block device or regular file");
  assert.equal(logged, ["its front still waits; retrying"]);
  assert.equal(state.recordNames(), ["tracker-7"]);
  late.stop();
  assert.not.ok(await isWaiting(late));
});

for (const [how, end, deleted] of [
  ["is gone", undefined, []],
  ["has ended", UblkState.DEAD, [3]],
] as const) {
  test(`a front that ${how} is forgotten`, async () => {
    const started = start([UblkState.LIVE, UblkState.LIVE, end]);
    await until(async () => !(await isWaiting(started.late)));
    assert.equal(started.deleted, deleted);
    assert.equal(state.recordNames(), []);
    assert.not.ok(state.fileNames().includes("cbt-7"));
    const { length } = started.asked;
    await new Promise((done) => setTimeout(done, 20));
    assert.is(started.asked.length, length, "the medium is not asked any more");
  });
}

test("a front whose number another program's device has now is gone, and that device is left alone", async () => {
  const { late, deleted } = start([UblkState.LIVE], state.owner + 1);
  await until(async () => !(await isWaiting(late)));
  assert.equal(deleted, []);
  assert.not(state.readRecords("tracker-").some(({ name }) => name === "tracker-7"));
  late.stop();
});

test("a waiting export is given up by its name if its path leads to something untracked", async () => {
  const device = join(folder, "disk.img");
  writeFileSync(device, "restored");
  const log = (_: unknown, text: string) => logged.push(text);
  const { blockDevices } = machinePorts();
  const context = {
    ...{ blockDevices, state, logger: { warn: log, error: log } },
    frontend: { kind: "nbd", nameOf: () => "its export" },
    persistent: { inUse: new Set() },
  };
  const waiting = [{ record: { ...record, device, identity: "file:1:1" }, why: "", kept: [] }];
  const late = new LateRecovery(context as never, { waiting }, locks(), () => undefined);
  const refused = (code: "DEVICE_BUSY" | "NOT_ATTACHED") => async () => {
    throw new ControlError(code, "it is not detached");
  };
  const tracked = { device, front: "that of the file that is there" };
  assert.equal(await late.giveUpOr(device, async () => tracked), tracked);
  for (const [path, code] of [
    [device, "DEVICE_BUSY"],
    [join(folder, "another"), "NOT_ATTACHED"],
  ] as const) {
    const error = await late.giveUpOr(path, refused(code)).catch((reason) => reason);
    assert.is(error.code, code);
  }
  assert.is(late.waiting.length, 1);
  const given = await late.giveUpOr(device, refused("NOT_ATTACHED"));
  assert.equal(given, { device, front: "its export" });
  assert.equal([late.waiting, state.recordNames()], [[], []]);
  late.stop();
});

test("an export that is given up is also forgotten on the medium, if that is requested", async () => {
  const device = join(folder, "gone.img");
  const uuid = "5c9e5a1e-0000-4000-8000-000000000001";
  const removed: string[] = [];
  const persistent = {
    inUse: new Set<string>(),
    inTime: (work: Promise<void>) => work,
    removeRecord: async (name: string) => void removed.push(name),
    removeFile: async (name: string) => void removed.push(name),
  };
  const log = (_: unknown, text: string) => logged.push(text);
  const context = {
    ...{ blockDevices: machinePorts().blockDevices, state, persistent },
    ...{ logger: { warn: log, error: log }, frontend: { kind: "nbd", nameOf: () => "its export" } },
  };
  const refused = async () => {
    throw new ControlError("NOT_ATTACHED", "it is not detached");
  };
  for (const forgets of [false, true]) {
    const waiting = [{ record: { ...record, device, uuid }, why: "", kept: [] }];
    const late = new LateRecovery(context as never, { waiting }, locks(), () => undefined);
    assert.equal(await late.giveUpOr(device, refused, forgets), { device, front: "its export" });
    assert.equal([removed.length, persistent.inUse.size], [forgets ? 2 : 0, 0]);
    late.stop();
  }
  assert.equal(removed, [`cbt-${uuid}.journal`, `tracker-${uuid}`]);
});

test("an export that is resumed while it is being given up by its name is detached", async () => {
  const device = join(folder, "disk.img");
  writeFileSync(device, "restored");
  const { recover } = Tracker;
  let isRecovered = (): void => undefined;
  let isBegun = false;
  Tracker.recover = async () => {
    isBegun = true;
    await new Promise<void>((resolve) => {
      isRecovered = resolve;
    });
    return { id: 7, device, front: { path: "its export" } } as never;
  };
  const quiet = () => undefined;
  const { blockDevices } = machinePorts();
  const context = {
    ...{ blockDevices, state, logger: { info: quiet, warn: quiet, error: quiet } },
    frontend: { kind: "nbd", nameOf: () => "its export", isFrontGone: async () => false },
    persistent: { inUse: new Set() },
  };
  const waiting = [{ record: { ...record, device, identity: "file:1:1" }, why: "", kept: [] }];
  const late = new LateRecovery(context as never, { waiting }, locks(), quiet, 1);
  try {
    await until(() => isBegun);
    let isTracked = false;
    const detached = { device, front: "detached" };
    const detach = async () => {
      if (!isTracked) throw new ControlError("NOT_ATTACHED", "it is another file");
      return detached;
    };
    const ending = late.giveUpOr(device, detach);
    // Enough time for one that does not wait.
    for (let turn = 0; turn < 10; turn++) await new Promise((done) => setTimeout(done, 1));
    isTracked = true;
    isRecovered();
    assert.equal(await ending, detached);
    assert.ok(state.recordNames().includes("tracker-7"), "it is that of what serves");
  } finally {
    Tracker.recover = recover;
    late.stop();
  }
});

test("later work on a resumed front delays its own device, not the other fronts", async () => {
  const { recover } = Tracker;
  const kept: unknown[] = [];
  Tracker.recover = async (_, { id, front, device }, left) => {
    kept.push(left);
    return { id, device, front: { path: `/dev/ublkb${front}` } } as never;
  };
  try {
    const info = { state: UblkState.LIVE, serverFlags: DeviceMark.FRONT };
    const ublk = { deviceInfo: async () => ({ ...info, serverFlagsHigh: state.owner }) };
    const log = (_: unknown, text: string) => logged.push(text);
    const logger = { info: log, warn: log, error: log };
    const frontend = new UblkFrontend(ublk as never, state.owner, logger as never);
    const context = { frontend, state, logger };
    const waiting = [7, 8, 9].map((id) => ({
      record: { ...record, id, identity: `block:259:${id}`, front: id },
      why: "at the start",
      kept: [`area ${id}`],
    }));
    const told: number[] = [];
    const own = locks();
    const onRecovered = ({ id }: Tracker): Promise<void> => {
      told.push(id);
      return id === 7 ? new Promise(() => undefined) : Promise.reject(new Error("it broke"));
    };
    const late = new LateRecovery(context as never, { waiting }, own, onRecovered, 1);
    await until(() => own.running.length === 1 && late.waiting.length === 0);
    assert.equal(told, [7, 8, 9], "each once, though it failed");
    const lost = [7, 8, 9].map((id) => ({ kept: [`area ${id}`] }));
    assert.equal(kept, lost, "images that the snapshot has lost by then are not to come back");
    assert.equal(
      [late.waiting, own.running.map(({ what }) => what)],
      [[], [`the return of ${DEVICE}`]],
    );
    assert.is(logged.filter((text) => text.includes("not settled")).length, 2);
    late.stop();
  } finally {
    Tracker.recover = recover;
  }
});

test.run();
