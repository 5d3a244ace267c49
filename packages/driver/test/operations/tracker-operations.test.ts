/** Operations on live-attached devices. */
import { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deviceLock } from "../../dist/driver-end.js";
import { TrackerOperations } from "../../dist/operations/tracker-operations.js";
import { Registry } from "../../dist/registry.js";
import { assertSpliced } from "../../dist/tracker/splice-watch.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

test("operations queue for the node, both before and after it is attached", () => {
  const splice = new Splice(NODE);
  assert.is(deviceLock({ identity: "block:254:3" }), "device block:254:3");
  assert.is(deviceLock({ identity: "block:254:7", splice }), "device block:254:3");
});

test("a front that is out of its node and cannot be ended is reported to miss writes", async () => {
  const splice = new Splice(NODE);
  splice.state = "on";
  const tracker = {
    ...{ id: 1, device: "/dev/vg/data", front: { id: 0 }, splice, hasEnded: false },
    detach: () => Promise.reject(new Error("the front is in use")),
  };
  const live = {
    takeOut: async () => {
      splice.state = "ending";
    },
    clones: { remove: () => assert.unreachable("the front is on it") },
  };
  const registry = { trackers: new Map([[1, tracker]]) };
  const context = { logger: {} };
  const operations = new TrackerOperations(context as never, registry as never, 1, live as never);
  const failure = await operations.detach(tracker as never, {}).then(
    () => "",
    (error) => error.message,
  );
  assert.is(failure, "the front is in use");
  assert.is(registry.trackers.size, 1);
  assert.throws(() => assertSpliced(tracker as never), /missed \(its detach did not end\)/);
});

test("with NBD fronts, a possible export of this daemon is refused as an original", async () => {
  const refused = async (kind: string) => {
    const registry = {
      claimed: (_: string, use: (claim: object) => Promise<unknown>) => use({ identity: "" }),
      ownDeviceBeneath: async () => ({ path: "/dev/nbd0", how: "which may be an export" }),
      get topology(): never {
        throw new Error("it is looked at what else uses it");
      },
    };
    const live = { wanted: async () => undefined };
    const context = { frontend: { kind }, logger: {} };
    const operations = new TrackerOperations(context as never, registry as never, 1, live as never);
    const attached = operations.attach("/dev/mapper/on-nbd", { persistent: false } as never);
    return await attached.then(
      () => "",
      ({ code, message }) => `${code} ${message}`,
    );
  };
  assert.match(await refused("nbd"), /^DEVICE_BUSY .*on-nbd lies on \/dev\/nbd0, which may be/);
  assert.match(await refused("ublk"), /what else uses it/);
});

/** The state that an earlier daemon left: records by name. */
function stateWith(records: Record<string, unknown> = {}) {
  return {
    path: "/state",
    records,
    readRecords: (prefix: string) =>
      Object.entries(records)
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => ({ name, value })),
    writeRecord: (name: string, value: unknown) => {
      records[name] = value;
    },
    removeRecord: (name: string) => {
      delete records[name];
    },
  };
}

/** A lost volume whose name becomes `vg-archive` at its first turn. Resolves after that turn. */
async function renamed(paths: Readonly<Record<string, string>>) {
  const splice = new Splice(NODE);
  splice.lose("another program gave it another table");
  splice.isTaken = true;
  let name = NODE.name;
  splice.present = () => ({ ...NODE, name }) as never;
  const lookUp = async (path: string) => {
    if (paths[path] === undefined) throw Object.assign(new Error(path), { code: "ENOENT" });
    return { identity: paths[path] };
  };
  const registry = new Registry({ lookUp } as never);
  const tracker = {
    ...{ id: 1, device: "/dev/vg/data", identity: "block:254:7", isGone: false, splice },
    front: { id: 0, path: "/dev/ublkb0", isLive: true },
    hasIdentity: (identity: string) => identity === splice.identity,
  };
  registry.trackers.set(1, tracker as never);
  const live = {
    wanted: async (path: string) => void (await lookUp(path)),
    syncNode: async () => undefined,
    recover: async () => undefined,
    clones: { removeOrphans: async () => undefined },
    dm: {
      exclusively: (_: object, work: () => Promise<void>) => work(),
      assertUnchanging: async () => undefined,
      growthOf: async () => "same",
    },
  };
  const places = { state: stateWith(), persistent: { path: "/persistent" } };
  const logger = { error: () => undefined, warn: () => undefined };
  const context = { ...places, blockDevices: { lookUp }, frontend: { kind: "ublk" }, logger };
  const operations = new TrackerOperations(context as never, registry, 1, live as never);
  const done: string[] = [];
  operations.detach = async () => {
    registry.trackers.clear();
    done.push("detach");
  };
  operations.attach = async (path) => {
    done.push(`attach ${path}`);
    return tracker as never;
  };
  const verdict = new Promise((resolve) => {
    const run = (_: unknown, __: unknown, operation: () => Promise<unknown>) => {
      name = "vg-archive";
      const turn = operation();
      resolve(turn);
      return turn;
    };
    const events = { onSpliceLost: () => undefined };
    const never = () => new Promise(() => undefined);
    void operations.recoverLive(events as never, { run } as never, never);
  });
  return { verdict: await verdict.finally(() => operations.stopWatch(true)), done };
}

test("a volume that was renamed with its new table is tracked again under its new name", async () => {
  const there = { "/dev/mapper/vg-archive": "block:254:3" };
  const followed = ["detach", "attach /dev/mapper/vg-archive"];
  assert.equal(await renamed(there), { verdict: "done", done: followed });
  const taken = { ...there, "/dev/vg/data": "block:254:9" };
  assert.equal(await renamed(taken), { verdict: "done", done: followed }, "its name is another's");
  assert.equal(await renamed({}), { verdict: "later", done: [] }, "its new name is to come");
});

/** Watched trackers whose nodes lead elsewhere. */
function losses(ids: readonly number[]) {
  const told: string[] = [];
  const lost = (id: number) => {
    const splice = new Splice({ ...NODE, number: `254:${id}` });
    splice.state = "on";
    splice.leadsTo = () => false;
    return { id, device: `/dev/vg/${id}`, front: { id }, splice };
  };
  const trackers = new Map(ids.map((id) => [id, lost(id)]));
  const registry = {
    trackers,
    snapshots: new Map(),
    snapshotOf: ({ id }: { id: number }) => (id === 1 ? {} : undefined),
    liveNodes: [],
    ownDeviceBeneath: async () => undefined,
    addTracker: (tracker: ReturnType<typeof lost>) => trackers.set(tracker.id, tracker),
  };
  const places = { state: stateWith(), persistent: { path: "/persistent" } };
  const context = { ...places, frontend: { kind: "ublk" }, logger: { error: () => undefined } };
  const live = {
    recover: async () => void told.push("recovered"),
    settle: async () => void told.push("settled"),
    clones: { removeOrphans: async () => undefined },
    dm: {},
  };
  const operations = new TrackerOperations(context as never, registry as never, 1, live as never);
  const events = { onSpliceLost: ({ device }: { device: string }) => told.push(`${device} lost`) };
  const locks = { run: async () => "never" };
  const never = () => new Promise(() => undefined);
  const begin = () => operations.recoverLive(events as never, locks as never, never);
  return { operations, begin, told, trackers, lost };
}

test("losses while no daemon served are known before the daemon is ready", async () => {
  const { operations, begin, told } = losses([1, 2]);
  await begin();
  // An image is read meanwhile; for the other device it is decided first whether it stays attached.
  assert.equal(told, ["/dev/vg/1 lost", "recovered", "/dev/vg/2 lost"]);
  operations.stopWatch(true);
});

test("a late device is settled before its node is checked, and no other is checked", async () => {
  const { operations, begin, told, trackers, lost } = losses([]);
  await begin();
  trackers.set(3, lost(3));
  await operations.addLate(lost(4) as never);
  assert.equal(told, ["recovered", "settled", "/dev/vg/4 lost"]);
  operations.stopWatch(true);
});

/** A daemon that finds what its predecessor has detached. */
function afterFollow(isTracked: boolean) {
  const away = { device: "/dev/vg/data", live: NODE, front: "/dev/ublkb3", since: "then" };
  const state = stateWith({ "return-254:3": { ...away, reason: "capacity_changed" } });
  const lookUp = async (path: string) => {
    if (path !== "/dev/vg/data") throw Object.assign(new Error(path), { code: "ENOENT" });
    return { identity: "block:254:3" };
  };
  const registry = new Registry({ lookUp } as never);
  registry.ownDeviceBeneath = async () => undefined;
  const tracker = { id: 1, device: "/dev/vg/data", identity: "block:254:7" };
  const splice = Object.assign(new Splice(NODE), { state: "on", leadsTo: () => true });
  const attached = { ...tracker, splice, isGone: false, front: { id: 0, path: "/dev/ublkb0" } };
  if (isTracked) registry.trackers.set(1, attached as never);
  const said: string[] = [];
  const say = (_: unknown, text: string) => void said.push(text);
  const logger = { error: say, warn: say, info: say };
  const places = { state, persistent: { path: "/persistent" } };
  const context = { ...places, blockDevices: { lookUp }, frontend: { kind: "ublk" }, logger };
  const live = {
    wanted: async (path: string) => void (await lookUp(path)),
    recover: async () => undefined,
    settle: async () => undefined,
    takeOut: async () => undefined,
    clones: { removeOrphans: async () => undefined, remove: async () => undefined },
    dm: {},
  };
  const operations = new TrackerOperations(context as never, registry, 1, live as never);
  const tried: string[] = [];
  /** Its turn does not come. */
  const run = (names: string[]) => {
    tried.push(...names);
    return new Promise(() => undefined);
  };
  const never = () => new Promise(() => undefined);
  const events = { onSpliceLost: () => undefined };
  const begin = () => operations.recoverLive(events as never, { run } as never, never);
  return { operations, begin, tried, said, state, registry, attached };
}

test("what the previous daemon has detached is listed before this one is ready, and attached", async () => {
  const { operations, begin, tried, said } = afterFollow(false);
  await begin();
  const [away] = operations.away;
  assert.equal([away?.device, away?.why, away?.since], ["/dev/vg/data", null, "then"]);
  assert.equal(tried, ["device block:254:3"]);
  assert.match(said[0] ?? "", /^not tracked: the previous daemon/);
  operations.stopWatch(true);
});

test("a volume that it has attached after all is neither listed nor on record", async () => {
  const { operations, begin, tried, state, said } = afterFollow(true);
  await begin();
  assert.equal([operations.away, tried, state.records, said], [[], [], {}, []]);
  operations.stopWatch(true);
});

test("a volume that is served late, and then detached, is not attached again", async () => {
  const { operations, begin, state, registry, attached } = afterFollow(false);
  await begin();
  await operations.addLate(attached as never);
  const hasIdentity = () => true;
  const detach = async () => void Object.assign(attached, { hasEnded: true });
  Object.assign(attached, { hasIdentity, detach });
  await operations.detachAt("/dev/vg/data", {});
  assert.equal([registry.trackers.size, operations.away, state.records], [0, [], {}]);
  operations.stopWatch(true);
});

test("a detach gives up the return of its volume, and of no other", async () => {
  for (const isThere of [true, false]) {
    const { operations, begin, state } = afterFollow(false);
    await begin();
    Object.assign(operations.away[0]?.splice ?? {}, {
      present: () => (isThere ? NODE : undefined),
    });
    const answer = await operations.detachAt("/dev/vg/data", {}).catch(({ code }) => code);
    if (isThere) {
      assert.equal(answer, { device: "/dev/vg/data", front: "/dev/ublkb3" });
      assert.equal([operations.away, state.records], [[], {}]);
    } else assert.is(answer, "NOT_ATTACHED", "another node has the number");
    operations.stopWatch(true);
  }
});

test("a volume to be attached again is known by its names before a rename", async () => {
  const { operations, begin, registry, state } = afterFollow(false);
  await begin();
  const by = (path: string) => registry.identity(path).catch(({ code }) => code);
  for (const path of ["/dev/mapper/vg-data", "/dev/disk/by-id/dm-uuid-LVM-x"]) {
    assert.is(await by(path), "block:254:3", path);
  }
  assert.is(await by("/dev/vg/none"), "DEVICE_NOT_FOUND");
  const answer = await operations.detachAt("/dev/mapper/vg-data", {});
  assert.equal([answer.device, operations.away, state.records], ["/dev/vg/data", [], {}]);
  operations.stopWatch(true);
});

test("an orderly end leaves nothing for the next daemon to attach, an upgrade does", async () => {
  for (const keeps of [true, false]) {
    const { operations, begin, state } = afterFollow(false);
    await begin();
    operations.stopWatch(keeps);
    assert.is(Object.keys(state.records).length, Number(keeps));
  }
});

test.run();
