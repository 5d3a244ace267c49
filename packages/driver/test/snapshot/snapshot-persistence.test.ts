import { test } from "uvu";
import * as assert from "uvu/assert";
import { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import type { MemberRecord, SnapshotRecord } from "../../dist/records/records.js";
import type { PersistentSnapshotRecord } from "../../dist/records/snapshot-records.js";
import type { Member } from "../../dist/snapshot/member.js";
import { SnapshotPersistence } from "../../dist/snapshot/snapshot-journals.js";

/** Its requests fail. */
const NO_REACTOR = 9;
const record = { id: "a", state: "taken", members: [] } as unknown as SnapshotRecord;

/** A medium whose next writes fail as preset, and reactors that report their requests. */
function world({
  failures = 0,
  refusals = 0,
  hangs = false,
  isHidden = false,
  kept = [] as readonly Partial<MemberRecord>[],
} = {}) {
  const steps: string[] = [];
  const written: PersistentSnapshotRecord[] = [];
  const never = new Promise<never>(() => undefined);
  const persistent = {
    forgetting: new Map(),
    giveUpTimeoutMs: hangs ? 1 : 60_000,
    answerTimeoutMs: hangs ? 1 : 60_000,
    writeRecord: async (_name: string, value: PersistentSnapshotRecord) => {
      if (hangs) return never;
      if (failures-- > 0) throw new Error("no space");
      steps.push("written");
      written.push(value);
    },
    removeRecord: async () => {
      if (hangs) return never;
      if (refusals-- > 0) throw new Error("read-only");
      steps.push("record removed");
    },
    removeFile: async () => steps.push("file removed"),
    inTime: (work: Promise<void>) =>
      hangs ? new PersistentDirectory("/medium", 1, 1).inTime(work) : work,
  };
  const reactors = {
    request: async (reactor: number, { type }: { type: string }) => {
      if (reactor === NO_REACTOR) throw new Error("the reactor has no such tracker");
      steps.push(type);
    },
  };
  const logger = { warn: () => undefined, error: () => undefined, fatal: () => undefined };
  const persistence = new SnapshotPersistence(
    { persistent, reactors, logger } as never,
    { id: "its-id", persistent: true, members: kept } as unknown as SnapshotRecord,
    async () => {
      if (!isHidden) throw new Error("it has no store with a name of ours");
      steps.push("store hidden");
    },
  );
  return { persistence, persistent, steps, written };
}

const member = {
  tracker: { id: 1, reactor: 0, loss: { errorCode: 0, area: null } },
  area: { id: "area" },
} as unknown as Member;

test("a record that could not be written does not prevent the next one", async () => {
  const { persistence, steps } = world({ failures: 1 });
  persistence.save(record, []);
  persistence.save({ ...record, state: "destroying" }, []);
  await persistence.saved();
  assert.equal(steps, ["written"]);
});

test("a loss is recorded for its own area, and for no later one", async () => {
  const { persistence, written } = world();
  const losses = [
    { errorCode: 0, area: null },
    { errorCode: -5, area: "area" },
    { errorCode: -5, area: "the one before" },
    // As older daemons recorded it.
    { errorCode: -5, area: null },
    // Its journal has the loss.
    { errorCode: -28, area: "area", isKept: true },
  ];
  const members = losses.map((loss) => ({ ...member, tracker: { ...member.tracker, loss } }));
  persistence.save(record, members as unknown as Member[]);
  await persistence.saved();
  assert.equal(
    written[0]?.members.map(({ lost }) => lost),
    [false, true, false, true, false],
  );
  assert.equal(
    written[0]?.members.map(({ errorCode }) => errorCode),
    [undefined, -5, undefined, -5, -28],
  );
});

test("given up: no write continues before the record is gone, for any caller", async () => {
  const { persistence, steps } = world();
  persistence.save(record, [member]);
  await Promise.all([
    persistence.giveUp([member], "the first reason"),
    persistence.giveUp([member], "another one, meanwhile"),
  ]);
  assert.not.ok(persistence.isOn);
  const removed = steps.indexOf("record removed");
  assert.ok(removed >= 0 && removed < steps.indexOf("dropAreaJournal"), steps.join(", "));
  // A journal that fails after that makes no writer wait.
  steps.length = 0;
  await persistence.giveUp([member], "once more");
  assert.equal(steps, ["dropAreaJournal"]);
});

test("given up: writes of one device continue, even if another is detached already", async () => {
  const { persistence, steps } = world();
  persistence.save(record, [member]);
  const detached = { ...member, tracker: { ...member.tracker, reactor: NO_REACTOR } } as Member;
  await persistence.giveUp([detached, member], "its disk fails");
  assert.ok(steps.includes("dropAreaJournal"), steps.join(", "));
});

test("a record that cannot be removed now is removed later: no boot restores a destroyed snapshot", async () => {
  // Waiting for the medium keeps no process alive.
  const alive = setInterval(() => undefined, 1000);
  const { persistence, steps } = world({ refusals: 1 });
  persistence.save(record, [member]);
  await persistence.unlessHung("not removed yet", () => persistence.forget());
  assert.equal(steps, ["written", "record removed"]);
  clearInterval(alive);
});

test("a snapshot destroyed after it was given up is forgotten only when the medium has removed it", async () => {
  const alive = setInterval(() => undefined, 1000);
  const { persistence, steps } = world({ refusals: 1 });
  persistence.save(record, [member]);
  const givingUp = persistence.giveUp([member], "a commit was not answered");
  await persistence.unlessHung("not removed yet", async () => {
    await persistence.forget();
    steps.push("forgotten");
  });
  await givingUp;
  clearInterval(alive);
  const removed = steps.indexOf("record removed");
  assert.ok(removed >= 0 && removed < steps.indexOf("forgotten"), steps.join(", "));
});

test("a medium that does not answer blocks neither callers of saved() nor the snapshot's end", async () => {
  const { persistence, steps } = world({ hangs: true });
  persistence.save(record, [member]);
  const error = await persistence.saved().then(
    () => assert.unreachable("saved"),
    (cause) => cause,
  );
  assert.is(error.code, "PERSISTENT_STATE_UNUSABLE");
  await persistence.giveUp([member], "a commit was not answered");
  assert.equal(steps, ["dropAreaJournal"]);
  await persistence.unlessHung("not done yet", () => new Promise(() => undefined));
  await persistence.suspend([]);
  const failing = persistence.unlessHung("not done", () => Promise.reject(new Error("EIO")));
  assert.is((await failing.catch((cause) => cause)).message, "EIO");
});

test("given up: if the record stays, writes continue as soon as a store is hidden", async () => {
  const { persistence, persistent, steps } = world({ isHidden: true });
  persistence.save(record, [member]);
  await persistence.saved();
  persistent.giveUpTimeoutMs = 20;
  persistent.removeRecord = () => new Promise(() => undefined);
  assert.ok(persistence.mayComeBack);
  await persistence.giveUp([member], "a commit was not answered");
  assert.equal(steps, ["written", "store hidden", "dropAreaJournal"]);
  assert.not.ok(persistence.mayComeBack);
});

const stateOf = ({ snapshot }: PersistentSnapshotRecord) => snapshot.state;

test("withdrawn: the medium records it before copies end, and nothing else after it", async () => {
  const { persistence, written } = world();
  persistence.save(record, []);
  await persistence.withdraw();
  assert.equal(written.map(stateOf), ["taken", "destroying"]);
  // An event, while members are closed.
  persistence.save(record, []);
  persistence.save({ ...record, state: "destroying" }, []);
  await persistence.saved();
  assert.equal(written.map(stateOf), ["taken", "destroying", "destroying"]);
  // An undone take is recorded again when it is taken again.
  persistence.save({ ...record, state: "created" }, []);
  persistence.save(record, []);
  await persistence.saved();
  assert.is(written.map(stateOf).at(-1), "taken");
});

test("withdrawn: a snapshot that was never taken needs no medium", async () => {
  const { persistence, written } = world();
  persistence.save({ ...record, state: "created" }, []);
  await persistence.saved();
  await persistence.withdraw();
  assert.equal(written.map(stateOf), ["created"]);
});

test("a snapshot that was never taken may be found by a boot until its end, or nothing, is on record", async () => {
  const { persistence, persistent } = world();
  const { writeRecord } = persistent;
  persistence.save({ ...record, state: "created" }, []);
  await persistence.saved();
  persistent.writeRecord = () => Promise.reject(new Error("no space"));
  persistence.save({ ...record, state: "destroying" }, []);
  await persistence.saved().catch(() => undefined);
  assert.ok(persistence.mayBeKept);
  assert.not.ok(persistence.mayComeBack);
  persistent.writeRecord = writeRecord;
  persistence.save({ ...record, state: "destroying" }, []);
  await persistence.saved();
  assert.not.ok(persistence.mayBeKept);
});

test("withdrawn: a disk without room for another record loses the existing one", async () => {
  const { persistence, steps } = world({ failures: 2 });
  persistence.save(record, []);
  await persistence.saved().catch(() => undefined);
  await persistence.withdraw();
  assert.equal(steps, ["record removed"]);
});

test("withdrawn: the same for a take that is undone", async () => {
  const { persistence, persistent, steps } = world();
  persistence.save({ ...record, state: "taking" }, []);
  await persistence.saved();
  persistent.writeRecord = () => Promise.reject(new Error("no space"));
  persistence.save(record, []);
  await persistence.saved().catch(() => undefined);
  persistence.save({ ...record, state: "taking" }, []);
  await persistence.withdraw();
  assert.equal(steps, ["written", "record removed"]);
  assert.not.ok(persistence.mayComeBack);
});

test("withdrawn: a medium that answers with errors ends persistence, but not for a take", async () => {
  const ofTake = world({ failures: 2, refusals: 1 });
  ofTake.persistence.save(record, []);
  await ofTake.persistence.saved().catch(() => undefined);
  const why = await ofTake.persistence.withdraw().catch(({ message }: Error) => message);
  assert.is(why, "read-only");
  await ofTake.persistence.saved();
  assert.equal(ofTake.written.map(stateOf), ["taken"], "it is as before");

  const { persistence, persistent, steps } = world({ failures: 2, refusals: 2, isHidden: true });
  persistence.save(record, [member]);
  await persistence.saved().catch(() => undefined);
  persistent.giveUpTimeoutMs = 20;
  await persistence.withdraw([member]);
  assert.equal(steps, ["store hidden", "dropAreaJournal"]);
  assert.not.ok(persistence.isOn);
});

test("withdrawn: if nothing prevents its return, that is reported once, and the next call succeeds", async () => {
  const { persistence, persistent, steps } = world({ failures: 2, refusals: 9 });
  persistence.save(record, [member]);
  await persistence.saved().catch(() => undefined);
  persistent.giveUpTimeoutMs = 20;
  const why = await persistence.withdraw([member]).catch(({ message }: Error) => message);
  assert.is(why, "read-only");
  assert.ok(persistence.mayComeBack);
  assert.not.ok(persistence.isOn);
  await persistence.withdraw([member]);
  assert.equal(steps, ["dropAreaJournal"]);
});

test("journals that fail before anything was written here: what an earlier daemon has kept is removed", async () => {
  const { persistence, steps } = world({ kept: [{ journal: "its-journal" }, {}] });
  await persistence.giveUp([member], "a commit was not answered");
  assert.equal(steps, ["record removed", "file removed", "dropAreaJournal"]);
  assert.not.ok(persistence.mayComeBack);
});

test("withdrawn: a snapshot that is being given up ends only when its record is gone", async () => {
  const { persistence, steps } = world();
  persistence.save(record, [member]);
  const givingUp = persistence.giveUp([member], "a commit was not answered");
  await persistence.withdraw([member]);
  assert.ok(steps.includes("record removed"), steps.join(", "));
  await givingUp;
});

test("withdrawn: late records reach the medium in the order of events", async () => {
  const { persistence, written, answer } = lateWorld();
  persistence.save(record, []);
  const withdrawing = persistence.withdraw([]).catch(({ code }: { code: string }) => code);
  persistence.save({ ...record, takenAt: "later" }, []);
  assert.is(await withdrawing, "PERSISTENT_STATE_UNUSABLE");
  assert.ok(persistence.mayComeBack);
  answer();
  await persistence.withdraw();
  assert.equal(written.map(stateOf), ["taken", "destroying"]);
  assert.is(written[1]!.snapshot.takenAt, "later");
  assert.not.ok(persistence.mayComeBack);
});

test("while the medium does not answer, only the newest record waits", async () => {
  const { persistence, written, answer } = lateWorld();
  for (let change = 0; change < 1000; change++) {
    persistence.save({ ...record, takenAt: `change ${change}` }, []);
    if (change === 0) await Promise.resolve();
  }
  answer();
  await persistence.saved();
  assert.equal(
    written.map(({ snapshot }) => snapshot.takenAt),
    ["change 0", "change 999"],
  );
});

/** A medium that answers when the test lets it. */
function lateWorld() {
  const all = world();
  let answer: () => void = () => undefined;
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let isLate = true;
  const { writeRecord, inTime } = all.persistent;
  all.persistent.writeRecord = async (name, value) => {
    await answered;
    return writeRecord(name, value);
  };
  all.persistent.inTime = (work) =>
    isLate ? new PersistentDirectory("/medium", 1, 1).inTime(work) : inTime(work);
  return {
    ...all,
    answer: () => {
      isLate = false;
      answer();
    },
  };
}

test.run();
