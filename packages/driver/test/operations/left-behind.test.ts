/** Each step of attach, recover and detach fails in turn; the test counts what is left. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceMark, openBackingFile, UblkState } from "@blksnap/ublk";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { UblkFrontend } from "../../dist/frontend/ublk-frontend.js";
import { machinePorts } from "../../dist/index.js";
import { TrackerOperations } from "../../dist/operations/tracker-operations.js";
import { fixParameters } from "../../dist/parameters.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import { trackerRecords } from "../../dist/records/tracker-records.js";
import { geometryOf } from "../../dist/tracker/geometry.js";
import { identityOfBacking } from "../../dist/tracker/original.js";
import { Tracker } from "../../dist/tracker/tracker.js";
import { TrackerJournal } from "../../dist/tracker/tracker-journal.js";
import { patientDirectory } from "../support/patient-directory.js";

const test = suite("left behind");
const CAPACITY_BYTES = 2 ** 20;
const PARAMETERS = fixParameters({}, 2 ** 30).parameters;
/** A front fails at its parameters, or at its recovery. */
const FRONT = 999_999;
const NO_UBLK = "there is no ublk here";
const TRACKER = 3;

/** Steps that acquire something; steps that release do not fail here. */
const TAKING: Readonly<Record<string, readonly string[]>> = {
  state: ["createMap", "bindMap", "openMap", "writeRecord"],
  persistent: ["exists", "own", "boot", "file", "readRecords", "writeRecord"],
  reactors: ["assign", "request"],
  ublk: ["addDevice", "setParams", "deviceInfo", "startRecovery"],
};
const GIVING: Readonly<Record<string, readonly string[]>> = {
  state: ["removeRecord", "removeMap"],
  persistent: ["file", "writeRecord", "removeRecord", "removeFile"],
  reactors: ["release"],
  ublk: [],
};

class Injected extends Error {}

/** Fails one call of the wrapped object, by number. */
class FailingCalls {
  calls = 0;
  isArmed = true;
  met: string | undefined;
  readonly #failing: number;

  constructor(failing: number) {
    this.#failing = failing;
  }

  wrap<Target extends object>(name: string, target: Target, methods: readonly string[]): Target {
    return new Proxy(target, {
      get: (_, property) => {
        const value = Reflect.get(target, property, target);
        if (typeof value !== "function") return value;
        const counts = methods.includes(String(property));
        return (...args: unknown[]) => {
          if (counts && this.isArmed && ++this.calls === this.#failing) {
            this.met = `${name}.${String(property)}`;
            throw new Injected(this.met);
          }
          return value.apply(target, args);
        };
      },
    });
  }
}

function isSocket(fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
  } catch {
    return false;
  }
}

class Host {
  readonly root = mkdtempSync(join(tmpdir(), "blksnap-left-"));
  readonly disk = join(this.root, "disk");
  readonly state: StateDirectory;
  persistent = patientDirectory(join(this.root, "state"));
  readonly devices = new Set<number>();
  readonly errors: string[] = [];
  assigned = 0;

  constructor() {
    writeFileSync(this.disk, Buffer.alloc(CAPACITY_BYTES));
    mkdirSync(join(this.root, "run"));
    this.state = new StateDirectory(join(this.root, "run"));
  }

  close(): void {
    this.state.close();
    this.persistent.close();
    rmSync(this.root, { recursive: true });
  }

  /** The next daemon, which finds what the previous one has left. */
  async restart(): Promise<void> {
    this.persistent.close();
    this.persistent = patientDirectory(this.persistent.path);
    await this.persistent.own();
  }

  context(failing: FailingCalls, methods = TAKING) {
    const log = (_: unknown, text: string) => this.errors.push(text);
    const logger = { info: log, warn: log, error: log, fatal: log };
    const ublk = {
      addDevice: async () => {
        this.devices.add(FRONT);
        return { id: FRONT, maxIoBytes: 524_288 };
      },
      setParams: () => Promise.reject(new Error(NO_UBLK)),
      deleteDevice: async (id: number) => this.devices.delete(id),
      stopDevice: async () => undefined,
      startRecovery: () => Promise.reject(new Error(NO_UBLK)),
      deviceInfo: async () => ({
        id: FRONT,
        state: UblkState.QUIESCED,
        serverFlags: DeviceMark.FRONT,
        serverFlagsHigh: this.state.owner,
        queueDepth: 64,
        maxIoBytes: 524_288,
      }),
    };
    const reactors = {
      assign: () => {
        this.assigned++;
        return 0;
      },
      release: () => void this.assigned--,
      request: async () => ({}),
    };
    const wrap = <Target extends object>(name: string, target: Target) =>
      failing.wrap(name, target, methods[name] ?? []);
    const control = wrap("ublk", ublk) as never;
    return {
      frontend: new UblkFrontend(control, this.state.owner, logger as never),
      reactors: wrap("reactors", reactors),
      state: wrap("state", this.state),
      persistent: wrap("persistent", this.persistent),
      blockDevices: machinePorts().blockDevices,
      trustReboots: false,
      parameters: PARAMETERS,
      frontDepth: 64,
      maxIoBytes: 524_288,
      logger,
    } as never;
  }

  /** Everything that can be left, except the record itself. */
  inventory() {
    const mappings = readFileSync("/proc/self/maps", "utf8")
      .split("\n")
      .filter((line) => line.includes(this.root)).length;
    return {
      // Helper processes stay; this process talks to them through sockets.
      descriptors: readdirSync("/proc/self/fd").filter((fd) => !isSocket(fd)).length,
      mappings,
      state: readdirSync(this.state.path).sort(),
      persistent: existsSync(this.persistent.path) ? readdirSync(this.persistent.path).sort() : [],
      inUse: this.persistent.inUse.size,
      unanswered: this.persistent.unanswered.size,
      assigned: this.assigned,
      devices: this.devices.size,
    };
  }

  /** A real tracker, except for its front. */
  async tracker(context: never, persistent = true): Promise<Tracker> {
    const undo: never[] = [];
    const backing = openBackingFile(this.disk);
    const geometry = geometryOf(backing, PARAMETERS);
    const options = { persistent };
    const map = await TrackerJournal.attach(context, TRACKER, backing, geometry, options, undo);
    const identity = identityOfBacking(backing);
    const reactor = (context as { reactors: { assign(): number } }).reactors.assign();
    const path = join(this.root, "front");
    writeFileSync(path, "");
    const front = { id: FRONT, path, deviceNumber: "", stop: async () => undefined };
    const parts = { id: TRACKER, identity, backing, geometry, reactor, ...map };
    const make = Tracker as unknown as new (...args: unknown[]) => Tracker;
    const tracker = new make(context, parts, front);
    tracker.recordLoss(tracker.loss);
    return tracker;
  }
}

const NEVER = Number.POSITIVE_INFINITY;

/** Repeats the run with each call failing in turn, until the failing one is beyond the last. */
async function eachStep(
  prepare: (host: Host) => Promise<void>,
  work: (host: Host, failing: FailingCalls) => Promise<unknown>,
  check: (host: Host, before: ReturnType<Host["inventory"]>, told: string) => Promise<void> | void,
): Promise<string[]> {
  const steps: string[] = [];
  for (let failing = 1; ; failing++) {
    const host = new Host();
    try {
      await prepare(host);
      await host.restart();
      const before = host.inventory();
      const calls = new FailingCalls(failing);
      const error = await work(host, calls).then(
        () => undefined,
        (reason: Error) => reason,
      );
      const told = `${calls.met ?? "the last step"}: ${error?.message}`;
      await check(host, before, told);
      if (calls.met === undefined) return steps;
      steps.push(calls.met);
    } finally {
      host.close();
    }
  }
}

async function nothing(): Promise<void> {}

/** The record of a tracker that was detached in order. */
async function recorded(host: Host): Promise<void> {
  await host.persistent.own();
  const tracker = await host.tracker(host.context(new FailingCalls(NEVER)));
  await tracker.detach();
}

/** What a killed daemon leaves. */
async function killed(host: Host): Promise<void> {
  await host.persistent.own();
  const backing = openBackingFile(host.disk);
  const geometry = geometryOf(backing, PARAMETERS);
  const context = host.context(new FailingCalls(NEVER));
  const options = { persistent: true };
  const map = await TrackerJournal.attach(context, TRACKER, backing, geometry, options, []);
  const record = {
    id: TRACKER,
    device: host.disk,
    identity: identityOfBacking(backing),
    front: FRONT,
    geometry,
    errorCode: 0,
    uuid: map.journal?.uuid,
  };
  host.state.writeRecord(`tracker-${TRACKER}`, record);
  await map.journal?.close();
  map.cbtMemory.unmap();
  host.state.closeMap(map.cbtFile);
  closeSync(backing.fd);
}

/** The next attach continues with the record. */
async function assertFree(host: Host, persistent: boolean, told: string): Promise<void> {
  const backing = openBackingFile(host.disk);
  const options = { persistent };
  const next = await TrackerPersistence.prepare(host.persistent, backing, options);
  const [record, ...others] = await trackerRecords(host.persistent);
  assert.equal(others, [], told);
  assert.ok(next.kind !== "unrecorded", told);
  assert.is(next.persistence.uuid, record?.uuid, told);
  await next.persistence.close();
  closeSync(backing.fd);
}

for (const persistent of [true, false]) {
  test(`attach, ${persistent ? "" : "not "}persistent: no failed step leaves anything`, async () => {
    const steps = await eachStep(
      nothing,
      (host, failing) => Tracker.attach(host.context(failing), TRACKER, host.disk, { persistent }),
      (host, before, told) => {
        assert.match(told, /state\.|persistent\.|reactors\.|ublk\.|no ublk/);
        assert.equal(host.inventory(), before, told);
      },
    );
    assert.ok(steps.length > (persistent ? 9 : 4), `only ${steps}`);
  });
}

test("attach of a device with a record: the record is released after any failed step", async () => {
  for (const isChanged of [false, true]) {
    const prepare = async (host: Host) => {
      await recorded(host);
      if (isChanged) writeFileSync(host.disk, Buffer.alloc(CAPACITY_BYTES, 1));
    };
    const options = { persistent: true };
    await eachStep(
      prepare,
      (host, failing) => Tracker.attach(host.context(failing), TRACKER, host.disk, options),
      async (host, before, told) => {
        // A failure while everything is undone cannot be recorded: the record must not be trusted.
        const isForgotten = told.startsWith("persistent.") && told.includes(NO_UBLK);
        const after = host.inventory();
        const not = isForgotten ? { persistent: after.persistent } : {};
        assert.equal(after, { ...before, ...not }, told);
        const [record] = await trackerRecords(host.persistent);
        if (!isForgotten || record !== undefined) assert.is(record?.attached, false, told);
        if (record === undefined) return;
        // A changed device without a name of its own is the recorded one only if the user says so.
        await assertFree(host, isChanged, told);
      },
    );
  }
});

test("recover: after any failed step the record is free, and the map exists", async () => {
  const steps = await eachStep(
    killed,
    async (host, failing) => {
      const [found] = host.state.readRecords("tracker-");
      const record = (found as unknown as { value: never }).value;
      await Tracker.recover(host.context(failing), record, undefined, 10);
    },
    (host, before, told) => {
      const after = host.inventory();
      // A medium that failed must not be trusted, and the front would have continued without it.
      const onMedium = /^persistent\.(own|boot|file|writeRecord)/.test(told)
        ? { persistent: after.persistent }
        : {};
      // A map that cannot be opened is replaced by a new one, which is removed again.
      const ofMaps = told.startsWith("state.openMap") ? { state: after.state } : {};
      const not = { ...onMedium, ...ofMaps, devices: 0 };
      assert.equal({ ...after, ...not }, { ...before, ...not }, told);
    },
  );
  assert.ok(steps.length > 6, `only ${steps}`);
});

test("a front that cannot be recovered: the next attach continues with its record", async () => {
  const host = new Host();
  await killed(host);
  await host.restart();
  const [found] = host.state.readRecords("tracker-");
  const { value } = found as unknown as { value: never };
  const context = host.context(new FailingCalls(NEVER));
  await Tracker.recover(context, value, undefined, 10).catch(() => undefined);
  assert.is(host.persistent.inUse.size, 0);
  const backing = openBackingFile(host.disk);
  const options = { persistent: true };
  const next = await TrackerPersistence.prepare(host.persistent, backing, options);
  assert.ok(next.kind === "broken" || next.kind === "continues");
  assert.is((await trackerRecords(host.persistent)).length, 1);
  await next.persistence.close();
  closeSync(backing.fd);
  host.close();
});

for (const forget of [true, false]) {
  test(`detach${forget ? " --forget" : ""}: everything is released, whatever fails`, async () => {
    let before: ReturnType<Host["inventory"]> | undefined;
    const steps = await eachStep(
      nothing,
      async (host, failing) => {
        before = host.inventory();
        failing.isArmed = false;
        const context = host.context(failing, GIVING);
        const tracker = await host.tracker(context);
        const trackers = new Map([[TRACKER, tracker]]);
        const operations = new TrackerOperations(context, { trackers } as never, TRACKER);
        failing.isArmed = true;
        await operations.detach(tracker, { forget }).finally(() => {
          assert.is(trackers.size, 0, "the registry has one that is gone");
        });
      },
      (host, _, told) => {
        const after = host.inventory();
        const { descriptors, mappings, inUse, unanswered, assigned } = after;
        const was = before!;
        const expected = {
          descriptors: was.descriptors,
          mappings: was.mappings,
          inUse: 0,
          unanswered: 0,
          // Only what failed to be released is left.
          assigned: told.startsWith("reactors.release") ? 1 : 0,
        };
        const found = { descriptors, mappings, inUse, unanswered, assigned };
        if (told.startsWith("state.removeMap")) expected.descriptors++;
        assert.equal(found, expected, told);
      },
    );
    assert.ok(steps.length >= 4, `only ${steps}`);
  });
}

test.run();
