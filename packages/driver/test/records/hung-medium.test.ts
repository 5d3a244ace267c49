/** A persistent directory whose medium hangs: what does not need it continues, the rest is bounded. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JournalDraft } from "@blksnap/journal";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournalFile } from "../../dist/records/area-journal-file.js";
import { boundedSteps } from "../../dist/records/bounded-steps.js";
import { KeptFile } from "../../dist/records/file-names.js";
import { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import { restoreAfterReboot } from "../../dist/recovery/after-reboot.js";
import { patiently, type Waiting } from "../../dist/snapshot/patience.js";
import { HungCall } from "../support/hung-call.js";
import { patientDirectory } from "../support/patient-directory.js";
import { refusal } from "../support/persistence-world.js";

const test = suite("hung medium");
const ETIMEDOUT = 110;
/** The limit for what never answers here. */
const LIMIT_MS = 20;
/** The limit for what answers. */
const ANSWER_MS = 200_000;
const KNOWN = {
  snapshots: new Set<string>(),
  transient: new Set<string>(),
  journals: new Set<string>(),
  trackers: new Set<string>(),
  numbers: new Map<string, number>(),
  lastNumber: 0,
  unknownFronts: [] as string[],
  isBoot: true,
};
let folder: string;
let said: string[];

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-hung-"));
  said = [];
});
test.after.each(() => rmSync(folder, { recursive: true }));

function contextOf(persistent: PersistentDirectory): Parameters<typeof restoreAfterReboot>[0] {
  const log = (_: unknown, text: string) => void said.push(text);
  return { persistent, logger: { info: log, warn: log, error: log, fatal: log } } as never;
}

test("this process does not touch a directory that does not answer", async () => {
  const path = join(folder, "state");
  const asked: unknown[] = [];
  const look = async (...call: unknown[]) => {
    asked.push(call);
    return -ETIMEDOUT;
  };
  const directory = new PersistentDirectory(path, 1, 7, look);
  const backing = { path: "/dev/a" } as never;
  for (const work of [
    () => directory.own(),
    () => restoreAfterReboot(contextOf(directory), KNOWN),
    () => TrackerPersistence.prepare(directory, backing, { persistent: true }),
    () => TrackerPersistence.prepare(directory, backing, { persistent: false }),
  ]) {
    const { code, message } = await refusal(work());
    assert.equal(
      [code, message],
      ["PERSISTENT_STATE_UNUSABLE", `${path}: the medium does not answer`],
    );
  }
  assert.equal(asked, Array(4).fill([path, 7]));
  assert.not(existsSync(path));
});

test("a record whose read hangs blocks no caller forever", async () => {
  const directory = new PersistentDirectory(folder, 1, LIMIT_MS, async () => 0);
  const fifo = join(folder, "tracker-1.record");
  execFileSync("mkfifo", [fifo]);
  try {
    const { code } = await refusal(restoreAfterReboot(contextOf(directory), KNOWN));
    assert.is(code, "PERSISTENT_STATE_UNUSABLE");
  } finally {
    endReadersOf(fifo);
    directory.close();
  }
});

/** On a busy machine, its reader may not have opened it yet, and would then wait without end. */
function endReadersOf(fifo: string): void {
  const writer = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  rmSync(fifo);
  closeSync(writer);
}

test("while the medium owes an answer, no other attach reads its records", async () => {
  let asked = 0;
  let answer = (_: string[]): void => undefined;
  class Hanging extends PersistentDirectory {
    override names(): Promise<string[]> {
      asked++;
      return new Promise((resolve) => {
        answer = resolve;
      });
    }
  }
  const directory = new Hanging(folder, 1, LIMIT_MS, async () => 0);
  const prepare = () =>
    TrackerPersistence.prepare(directory, { path: "/dev/a" } as never, { persistent: false });
  for (let attach = 0; attach < 3; attach++) {
    assert.is((await refusal(prepare())).code, "PERSISTENT_STATE_UNUSABLE");
  }
  assert.is(asked, 1);
  directory.names = async () => [];
  (directory as { answerTimeoutMs: number }).answerTimeoutMs = ANSWER_MS;
  const waiting = prepare();
  answer([]);
  assert.equal(await waiting, { kind: "unrecorded" });
  directory.assertAnswers();
});

test("unknown journals are not removed after that was given up", async () => {
  const call = new HungCall(ANSWER_MS);
  class Hanging extends PersistentDirectory {
    override async removeFile(name: string): Promise<void> {
      await call.hang();
      await super.removeFile(name);
    }
  }
  // What answers has enough time, even on a busy machine.
  const directory = new Hanging(join(folder, "state"), 1, ANSWER_MS);
  mkdirSync(directory.path);
  for (let i = 0; i < 2; i++) {
    writeFileSync(join(directory.path, KeptFile.areaJournal.name(randomUUID())), "");
  }
  const restoring = restoreAfterReboot(contextOf(directory), KNOWN);
  const restored = await restoring.finally(() => call.restore());
  assert.equal(restored, { pending: [], snapshots: [], endsRecorded: true });
  assert.match(said.join(), "the medium does not answer: unclaimed journals");
  const removed = readdirSync(directory.path).filter((name) => name.endsWith(".journal"));
  assert.is(removed.length, 2);
  call.answer();
  while (readdirSync(directory.path).filter((name) => name.endsWith(".journal")).length > 1) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  call.answer();
  await new Promise((resolve) => setTimeout(resolve, LIMIT_MS));
  assert.is(readdirSync(directory.path).filter((name) => name.endsWith(".journal")).length, 1);
  directory.close();
});

test("a journal that is late for its take is removed when it arrives, and none is begun meanwhile", async () => {
  const directory = patientDirectory(join(folder, "state"));
  await directory.own();
  Object.assign(directory, { giveUpTimeoutMs: 1, answerTimeoutMs: LIMIT_MS });
  const { create } = JournalDraft;
  let answer = (): void => undefined;
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let begun = 0;
  JournalDraft.create = async (...args) => {
    begun++;
    await answered;
    return create.apply(JournalDraft, args);
  };
  const removed = new Promise<string>((resolve) => {
    const remove = directory.removeFile.bind(directory);
    directory.removeFile = (name) => remove(name).finally(() => resolve(name));
  });
  const area = randomUUID();
  try {
    // Each that is begun keeps a thread.
    for (const next of [area, randomUUID(), randomUUID()]) {
      const { code } = await refusal(AreaJournalFile.createInTime(directory, next));
      assert.is(code, "PERSISTENT_STATE_UNUSABLE");
    }
    assert.is(begun, 1);
    assert.equal(readdirSync(directory.path), ["lock"]);
    answer();
    assert.is(await removed, KeptFile.areaJournal.name(area));
    assert.equal(readdirSync(directory.path), ["lock"]);
    await new Promise(setImmediate);
    directory.assertAnswers();
  } finally {
    JournalDraft.create = create;
    directory.close();
  }
});

test("work in steps has no time limit while it proceeds, and ends when it is given up", async () => {
  const timer = { refreshed: 0, fire: (): void => undefined };
  const { setTimeout: real } = globalThis;
  globalThis.setTimeout = ((fire: () => void) => {
    timer.fire = fire;
    return { refresh: () => timer.refreshed++ };
  }) as never;
  try {
    let step = (): void => undefined;
    const hanging = (onStep: () => void) => {
      step = onStep;
      return new Promise<never>(() => undefined);
    };
    const outcome = boundedSteps(hanging, 1, () => new Error("late")).catch(String);
    step();
    step();
    assert.is(timer.refreshed, 2);
    timer.fire();
    assert.is(await outcome, "Error: late");
    assert.throws(() => step(), "late");
    assert.is(timer.refreshed, 2);
    assert.is(
      await boundedSteps(
        async () => "done",
        1,
        () => new Error("late"),
      ),
      "done",
    );
  } finally {
    globalThis.setTimeout = real;
  }
});

test("a wait for a step that hangs continues without it, unless it is ready by then", async () => {
  let waiting: Waiting | undefined;
  let given = 0;
  const hangs = (one: Waiting) => {
    waiting = one;
    return new Promise<never>(() => undefined);
  };
  assert.is(await patiently(hangs, LIMIT_MS, () => void given++), undefined);
  assert.equal([given, waiting?.isGivenUp], [1, true]);
  assert.throws(() => waiting?.ready(), "too late");
  assert.throws(() => waiting?.assertWanted(), "too late");
  const slow = async (one: Waiting): Promise<string> => {
    one.ready();
    await new Promise((resolve) => setTimeout(resolve, 5 * LIMIT_MS));
    one.assertWanted();
    return "served";
  };
  assert.is(await patiently(slow, LIMIT_MS, () => void given++), "served");
  assert.is(given, 1);
  const fails = () => Promise.reject(new Error("its own"));
  assert.is(await patiently(fails, 60_000, () => void given++).catch(String), "Error: its own");
});

test.run();
