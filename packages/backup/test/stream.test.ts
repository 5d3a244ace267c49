/** Streams: from an export to a restore, and cut, damaged, out of order or for another target. */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { PassThrough, Readable } from "node:stream";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CHUNK_BYTES } from "../dist/chunks.js";
import { exportRaw } from "../dist/export-raw.js";
import { exportStream, type StreamExportOptions } from "../dist/export-stream.js";
import { recordPathOf } from "../dist/raw-record.js";
import { restoreStream, verifyStream } from "../dist/restore-stream.js";
import type { BackupClient } from "../dist/snapshot.js";
import { openImage } from "../dist/source.js";
import { MAGIC_BYTES, RECORD_BYTES } from "../dist/stream-format.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 8 * MIB + 65_536;

interface Sent {
  readonly bytes: Buffer;
  /** Why it has no end. */
  readonly error: (Error & { code: string }) | undefined;
}

function optionsOf(machine: FakeMachine): Omit<StreamExportOptions, "sink"> {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "full" } };
}

async function send(machine: FakeMachine, more: Partial<StreamExportOptions> = {}): Promise<Sent> {
  const pieces: Buffer[] = [];
  const sink = {
    // The sender may use its buffer again.
    write: async (data: Uint8Array) => void pieces.push(Buffer.from(data)),
    end: async () => undefined,
  };
  const call = exportStream({ ...optionsOf(machine), sink, ...more });
  const error = await call.then(
    () => undefined,
    (failure: Error & { code: string }) => failure,
  );
  return { bytes: Buffer.concat(pieces), error };
}

async function sent(machine: FakeMachine, more?: Partial<StreamExportOptions>): Promise<Buffer> {
  const { bytes, error } = await send(machine, more);
  assert.is(error, undefined, error?.message);
  return bytes;
}

/** In pieces of no particular size. */
function inputOf(...streams: readonly Buffer[]): Readable {
  const bytes = Buffer.concat(streams);
  const pieces = function* (): Generator<Buffer> {
    for (let at = 0; at < bytes.length; at += 70_001) yield bytes.subarray(at, at + 70_001);
  };
  return Readable.from(pieces());
}

const restored = (machine: FakeMachine, ...streams: readonly Buffer[]) =>
  restoreStream({ input: inputOf(...streams), target: machine.path("copy") });

/** Where records begin, and the end. */
function recordStarts(stream: Buffer): number[] {
  const starts: number[] = [];
  let at = MAGIC_BYTES;
  for (; at < stream.length; at += RECORD_BYTES + stream.readUInt32LE(at + 4)) starts.push(at);
  return [...starts, at];
}

test("a full stream and an increment make a copy, each equal to the device", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(MIB, randomBytes(3 * MIB));
  const full = await sent(machine);
  assert.ok(full.length < 4.2 * MIB, "zeros are not sent");
  assert.is((await restored(machine, full)).kind, "full");
  await assertSame(machine.path("copy"), machine.content);
  machine.write(4 * MIB - 65_536, randomBytes(131_072));
  machine.write(0, randomBytes(100));
  machine.discard(2 * MIB, 65_536);
  const increment = await sent(machine, { wanted: { kind: "since", number: 1 } });
  assert.ok(increment.length < 1.3 * MIB);
  const { kind, parent, changes_number } = await restored(machine, increment);
  assert.is(kind, "incremental");
  assert.equal(parent, { changes_number: 1, taken_at: null });
  assert.is(changes_number, 2);
  await assertSame(machine.path("copy"), machine.content);
  machine.remove();
});

test("parts that are read into memory of others have their own bytes", async () => {
  const PARTS_IN_FLIGHT_MAX = 12;
  const machine = new FakeMachine((PARTS_IN_FLIGHT_MAX + 2) * CHUNK_BYTES);
  machine.write(0, randomBytes(machine.content.length));
  await restored(machine, await sent(machine));
  await assertSame(machine.path("copy"), machine.content);
  machine.remove();
});

test("a record continues the chain of streams, several streams come one behind the other", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const auto = { wanted: { kind: "auto" }, record: machine.path("sent") } as const;
  assert.is((await send(machine, { wanted: { kind: "auto" } })).error?.code, "BACKUP_CHAIN_BROKEN");
  const streams: Buffer[] = [];
  for (let round = 0; round < 3; round++) {
    machine.write(round * 2 * MIB, randomBytes(MIB));
    streams.push(await sent(machine, auto));
  }
  const { parent, changes_number } = await restored(machine, ...streams);
  assert.is(parent?.changes_number, 2);
  assert.ok(parent?.taken_at);
  assert.is(changes_number, 3);
  await assertSame(machine.path("copy"), machine.content);
  const again = exportRaw({
    ...optionsOf(machine),
    wanted: { kind: "auto" },
    target: machine.path("copy"),
  });
  assert.is((await again).kind, "incremental");
  machine.beginGeneration();
  const reasons: unknown[] = [];
  await sent(machine, { ...auto, onPlan: ({ kind, reason }) => reasons.push(kind, reason) });
  assert.is(reasons[0], "full");
  assert.match(String(reasons[1]), "began a new generation");
  machine.remove();
});

test("cut anywhere, a stream is incomplete, and the target does not look complete", async () => {
  const machine = new FakeMachine(5 * MIB);
  machine.write(65_536, randomBytes(3 * MIB));
  const full = await sent(machine);
  const copy = machine.path("copy");
  const starts = recordStarts(full);
  assert.is(starts.at(-1), full.length);
  const cuts = starts.flatMap((at) => [at - 1, at, at + 1, at + RECORD_BYTES]);
  for (const cut of [0, 1, 15, ...cuts].filter((at) => at < full.length)) {
    const part = full.subarray(0, cut);
    assert.is((await failureOf(restored(machine, part))).code, "BACKUP_INCOMPLETE", `at ${cut}`);
    assert.not.ok(existsSync(copy));
    const input = inputOf(part);
    assert.is((await failureOf(verifyStream({ input }))).code, "BACKUP_INCOMPLETE");
  }
  await restored(machine, full);
  machine.write(2 * MIB, randomBytes(MIB));
  const increment = await sent(machine, { wanted: { kind: "since", number: 1 } });
  for (const cut of recordStarts(increment).slice(1, -1)) {
    const part = increment.subarray(0, cut);
    assert.is((await failureOf(restored(machine, part))).code, "BACKUP_INCOMPLETE");
    assert.not.ok(existsSync(copy));
  }
  // The same stream again finds the copy that it continues.
  assert.is((await restored(machine, increment)).kind, "incremental");
  await assertSame(copy, machine.content);
  machine.remove();
});

test("of an update that was interrupted, an earlier stream makes no copy", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  await restored(machine, await sent(machine));
  const since = { wanted: { kind: "since", number: 1 } } as const;
  const streams: Buffer[] = [];
  for (let round = 0; round < 2; round++) {
    machine.write((3 + round) * MIB, randomBytes(MIB));
    streams.push(await sent(machine, since));
  }
  const [early, late] = streams as [Buffer, Buffer];
  await failureOf(restored(machine, late.subarray(0, late.length - 200)));
  const error = await failureOf(restored(machine, early));
  assert.is(error.code, "BACKUP_CHAIN_BROKEN");
  assert.match(error.message, "was interrupted");
  assert.not.ok(existsSync(machine.path("copy")));
  await restored(machine, late);
  await assertSame(machine.path("copy"), machine.content);
  machine.remove();
});

test("a changed byte, and a missing, repeated or foreign record are found", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(65_536, randomBytes(7 * MIB));
  const full = await sent(machine);
  const other = await sent(machine);
  const starts = recordStarts(full);
  const recordOf = (from: Buffer, index: number) =>
    from.subarray(recordStarts(from)[index], recordStarts(from)[index + 1]);
  const last = starts.length - 2;
  const wrong = [
    Buffer.concat([full.subarray(0, starts[1]), full.subarray(starts[2]!)]),
    Buffer.concat([full.subarray(0, starts[2]), recordOf(full, 1), full.subarray(starts[2]!)]),
    Buffer.concat([full.subarray(0, starts[2]), recordOf(other, 2), full.subarray(starts[3]!)]),
    Buffer.concat([full.subarray(0, starts[1]), recordOf(full, last)]),
  ];
  for (const at of [3, starts[0]!, starts[0]! + 100, starts[1]! + 9, starts[2]! + MIB]) {
    const changed = Buffer.from(full);
    changed[at]! ^= 1;
    wrong.push(changed);
  }
  for (const at of starts.slice(0, -1)) {
    const changed = Buffer.from(full);
    changed[at + 60]! ^= 1;
    wrong.push(changed);
  }
  for (const [index, stream] of wrong.entries()) {
    const error = await failureOf(restored(machine, stream));
    assert.is(error.code, "BACKUP_DAMAGED", `${index}: ${error.message}`);
    assert.not.ok(existsSync(machine.path("copy")));
  }
  const newer = Buffer.from(full);
  newer.write("2", MAGIC_BYTES - 1);
  assert.is((await failureOf(restored(machine, newer))).code, "BACKUP_VERSION");
  assert.is((await verifyStream({ input: inputOf(full, other) })).changes_number, 2);
  machine.remove();
});

test("garbage after a complete stream leaves the copy complete, and is reported", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const full = await sent(machine);
  const before = Buffer.from(machine.content);
  machine.write(0, randomBytes(MIB));
  const next = await sent(machine, { wanted: { kind: "since", number: 1 } });
  const followers: [code: string, why: RegExp, bytes: Buffer][] = [
    ["BACKUP_DAMAGED", /not a stream of blksnapctl/, Buffer.from("connection to backup closed.\n")],
    ["BACKUP_INCOMPLETE", /before its end record/, next.subarray(0, MAGIC_BYTES + 1)],
  ];
  const target = machine.path("copy");
  for (const [code, why, follower] of followers) {
    const error = await failureOf(restored(machine, full, follower));
    assert.is(error.code, code);
    assert.match(error.message, why);
    assert.match(error.message, `${target} is complete as of snapshot 1, taken at `);
    await assertSame(target, before);
    const verified = await failureOf(verifyStream({ input: inputOf(full, follower) }));
    assert.is(verified.code, code);
    assert.match(verified.message, "the stream is whole as of snapshot 1, taken at ");
  }
  // It is one that the next stream continues.
  assert.is((await restored(machine, next)).kind, "incremental");
  await assertSame(target, machine.content);
  const half = await failureOf(restored(machine, full, next.subarray(0, next.length - 1)));
  assert.not.match(half.message, "is complete");
  assert.not.ok(existsSync(target));
  machine.remove();
});

test("a stream that does not continue the target is refused, and leaves it as it is", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const full = await sent(machine);
  await sent(machine);
  machine.write(MIB, randomBytes(MIB));
  const gap = await sent(machine, { wanted: { kind: "since", number: 2 } });
  const refused = async (stream: Buffer, code: string, why: RegExp) => {
    const error = await failureOf(restored(machine, stream));
    assert.is(error.code, code, error.message);
    assert.match(error.message, why);
  };
  await refused(gap, "BACKUP_CHAIN_BROKEN", /does not say which snapshot/);
  await restored(machine, full);
  const before = readFileSync(machine.path("copy"));
  await refused(
    gap,
    "BACKUP_CHAIN_BROKEN",
    /continues snapshot 2, and the target is of snapshot 1/,
  );
  machine.beginGeneration();
  await sent(machine);
  const anew = await sent(machine, { wanted: { kind: "since", number: 1 } });
  await refused(anew, "BACKUP_CHAIN_BROKEN", /continues generation/);
  const stranger = new FakeMachine(CAPACITY_BYTES, "/dev/other");
  await refused(await sent(stranger), "TARGET_EXISTS", /is a copy of/);
  await assertSame(machine.path("copy"), before);
  const later = await sent(machine, { wanted: { kind: "since", number: 1 } });
  writeFileSync(machine.path("copy"), before);
  await refused(later, "BACKUP_CHAIN_BROKEN", /another program has written/);
  rmSync(recordPathOf(machine.path("copy")));
  await refused(full, "TARGET_EXISTS", /not a copy made by export/);
  await assertSame(machine.path("copy"), before);
  const impossible = await send(machine, { wanted: { kind: "since", number: 9 } });
  assert.is(impossible.error?.code, "BACKUP_CHAIN_BROKEN");
  for (const one of [machine, stranger]) one.remove();
});

test("an export that fails says why in its stream, and sends no end", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const open: StreamExportOptions["open"] = async (path) => {
    const image = await openImage(path);
    // As it overflows while it is read.
    const sync = async (): Promise<void> => {
      machine.errorCode = -28;
    };
    return { ...image, sync };
  };
  const { bytes, error } = await send(machine, { open });
  assert.is(error?.code, "SNAPSHOT_CORRUPTED");
  const failure = await failureOf(restored(machine, bytes));
  assert.is(failure.code, "BACKUP_INCOMPLETE");
  assert.match(failure.message, "is damaged (error -28)");
  assert.not.ok(existsSync(machine.path("copy")));
  assert.is(machine.destroyed, 1);
  machine.remove();
});

test("an abort ends an export with a stalled reader, and a restore with a stalled sender", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const stop = new AbortController();
  const sink = {
    write: () => {
      setImmediate(() => stop.abort());
      return new Promise<void>(() => undefined);
    },
    end: async () => undefined,
  };
  const stuck = await send(machine, { sink, signal: stop.signal });
  assert.is(stuck.error?.code, "ABORTED");
  assert.is(machine.destroyed, 1);
  const full = await sent(machine);
  const stopRestore = new AbortController();
  const input = new PassThrough();
  input.write(full.subarray(0, MIB));
  const { signal } = stopRestore;
  const restoring = restoreStream({ input, target: machine.path("copy"), signal });
  setImmediate(() => stopRestore.abort());
  assert.is((await failureOf(restoring)).code, "ABORTED");
  assert.not.ok(existsSync(machine.path("copy")));
  machine.remove();
});

test("the snapshot that a killed stream has left is destroyed by the next one, another one is named", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const hostFolder = machine.path("host");
  mkdirSync(hostFolder, { mode: 0o755 });
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const client: BackupClient = {
    ...machine.client,
    snapshotDestroy: () => Promise.reject(new Error("a planted kill")),
  };
  for (const folder of [hostFolder, undefined]) {
    await sent(machine, { client, hostFolder: folder, onNote });
    const left = machine.snapshotId;
    assert.is.not(left, null);
    notes.length = 0;
    machine.write(0, randomBytes(100));
    const stream = await sent(machine, { hostFolder, onNote });
    rmSync(machine.path("copy"), { force: true });
    rmSync(recordPathOf(machine.path("copy")), { force: true });
    await restored(machine, stream);
    const isNew = readFileSync(machine.path("copy")).equals(machine.content);
    assert.is(isNew, folder !== undefined);
    const note = `reads snapshot ${left}, taken at ${machine.takenAt}, which already existed: nothing of it is freed`;
    assert.equal(notes, isNew ? [] : [note]);
    assert.is(machine.snapshotId, isNew ? null : left);
    assert.equal(readdirSync(hostFolder), []);
  }
  machine.remove();
});

test("no snapshot is recorded if the record is world-writable, or another stream continues", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const hostFolder = machine.path("host");
  mkdirSync(hostFolder);
  chmodSync(hostFolder, 0o777);
  const seen: string[][] = [];
  const onPlan = (): void => void seen.push(readdirSync(hostFolder).sort());
  await sent(machine, { hostFolder, onPlan });
  assert.equal(seen, [[]]);
  chmodSync(hostFolder, 0o755);
  const open: StreamExportOptions["open"] = async (path) => {
    // The one beside it reads the same snapshot, and lets it be.
    const id = machine.snapshotId;
    await sent(machine, { hostFolder });
    assert.is(machine.snapshotId, id);
    return await openImage(path);
  };
  await sent(machine, { hostFolder, onPlan, open, frees: false });
  assert.is(seen[1]!.length, 2);
  assert.is(machine.snapshotId, null);
  assert.equal(readdirSync(hostFolder), []);
  machine.remove();
});

test.run();
