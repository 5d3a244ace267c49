/** The parts of an image that an export frees: only chunks that it does not read any more. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { NbdError } from "@blksnap/nbd";
import { eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type DoneChunks,
  type DoneChunksOptions,
  doneChunks,
  type ImageTrims,
  keptReason,
} from "../dist/done-chunks.js";
import { exportRaw, type RawExportOptions } from "../dist/export-raw.js";
import type { TakenSnapshot } from "../dist/snapshot.js";
import { type ImageReader, openImage } from "../dist/source.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CHUNK = 4 * MIB;
const CAPACITY_BYTES = 5 * CHUNK + 65_536;

class Trims implements ImageTrims {
  readonly ranges: [number, number][] = [];
  onTrim: (offsetBytes: number, lengthBytes: number) => void = () => undefined;
  isDestroyed = false;

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    this.onTrim(offsetBytes, lengthBytes);
    this.ranges.push([offsetBytes, lengthBytes]);
  }

  destroy(): void {
    this.isDestroyed = true;
  }
}

function snapshotOf(more: Partial<TakenSnapshot> = {}): TakenSnapshot {
  const own = { kept: null, exported: "nbd+unix:///image", capacityBytes: CAPACITY_BYTES };
  return { ...own, ...more } as TakenSnapshot;
}

/** Frees a device of which the first chunk is read. */
function freeing(options: DoneChunksOptions): DoneChunks {
  return doneChunks(snapshotOf(), [0], null, options);
}

async function turns(): Promise<void> {
  await nextTurn();
  await nextTurn();
}

test("unread chunks are freed at once, other chunks when their last part is done", async () => {
  const trims = new Trims();
  const parts = [0, MIB, CHUNK, 4 * CHUNK];
  const openTrims = async () => trims;
  const freed = doneChunks(snapshotOf(), parts, null, { openTrims });
  await turns();
  const unread: [number, number][] = [
    [2 * CHUNK, 2 * CHUNK],
    [5 * CHUNK, 65_536],
  ];
  assert.equal(trims.ranges, unread);
  freed.done(MIB);
  await turns();
  assert.equal(trims.ranges, unread);
  freed.done(0);
  await turns();
  assert.equal(trims.ranges, [...unread, [0, CHUNK]]);
  assert.throws(() => freed.done(0), "was done already");
  assert.is(freed.end(), 3 * CHUNK + 65_536);
  assert.ok(trims.isDestroyed);
  freed.done(CHUNK);
  await turns();
  assert.is(trims.ranges.length, 3);
});

test("nothing is freed if there is a reason, which is reported", async () => {
  const trims = new Trims();
  const options = { openTrims: async () => trims, freesMinBytes: MIB };
  const reasonOf = (more: Partial<TakenSnapshot>, bytes = MIB) =>
    keptReason(snapshotOf(more), bytes, options);
  assert.is(reasonOf({}), null);
  assert.is(reasonOf({}, MIB - 1), "little_to_read");
  assert.is(reasonOf({ capacityBytes: 2 ** 38 + 1 }), "large_device");
  assert.is(reasonOf({ exported: null }), "no_nbd_server");
  assert.is(reasonOf({ kept: "existing_snapshot", exported: null }), "existing_snapshot");
  const others = doneChunks(snapshotOf(), [0], "existing_snapshot", options);
  others.done(0);
  await turns();
  assert.is(others.end(), 0);
  assert.equal(trims.ranges, []);
});

test("a refused trim ends it, and that is reported once", async () => {
  const trims = new Trims();
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  trims.onTrim = () => {
    throw new NbdError("REQUEST_FAILED", "it is not allowed");
  };
  const own = freeing({ openTrims: async () => trims, onNote });
  await turns();
  own.done(0);
  assert.is(own.end(), 5 * CHUNK + 65_536 - CHUNK);
  const why = "what is read from now on stays in the diff storage until the end: it is not allowed";
  assert.equal(notes, [why]);
});

test("a lost connection is re-established, and what it had not answered is freed again", async () => {
  const lost = new Trims();
  lost.onTrim = () => {
    throw new NbdError("CONNECTION_LOST", "the server is gone");
  };
  const [again, notes]: [Trims, string[]] = [new Trims(), []];
  const answers = [
    async () => lost,
    () => Promise.reject(new NbdError("CONNECT_FAILED", "no server listens")),
    async () => again,
  ];
  const openTrims = () => answers.shift()!();
  const freed = freeing({ openTrims, onNote: (text) => notes.push(text) });
  freed.done(0);
  await eventually("all is freed", () => again.ranges.length === 2);
  const rest: [number, number] = [CHUNK, 4 * CHUNK + 65_536];
  assert.equal(again.ranges, [rest, [0, CHUNK]]);
  assert.ok(lost.isDestroyed);
  // It may have done that, too.
  assert.is(freed.end(), 2 * rest[1] + CHUNK);
  assert.equal(notes, []);
});

test("a server that stays away is named once, and an end waits for neither it nor a trim", async () => {
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  const openTrims = () => Promise.reject(new NbdError("CONNECT_FAILED", "no server listens"));
  freeing({ openTrims, onNote, reconnectMs: 0 });
  await turns();
  const why = "what is read from now on stays in the diff storage until the end: no server listens";
  assert.equal(notes, [why]);
  freeing({ openTrims, onNote }).end();
  const silent = new Trims();
  silent.trim = () => new Promise(() => undefined);
  const waiting = freeing({ openTrims: async () => silent, onNote });
  await turns();
  assert.is(waiting.end(), 4 * CHUNK + 65_536);
  assert.ok(silent.isDestroyed);
  await turns();
  assert.is(notes.length, 1);
});

function optionsOf(machine: FakeMachine, trims: Trims): RawExportOptions {
  const { client, device } = machine;
  const own = {
    client,
    device,
    stores: ["/var/tmp"],
    limitBytes: MIB,
    host: "here",
    freesMinBytes: 0,
  };
  const target = machine.path("copy");
  machine.exported = "nbd+unix:///image";
  return { ...own, target, wanted: { kind: "auto" }, openTrims: async () => trims };
}

/** Fails if it reads what was freed. */
function openChecked(trims: Trims): (image: string) => Promise<ImageReader> {
  return async (image) => {
    const reader = await openImage(image);
    return {
      ...reader,
      read: (data, offsetBytes) => {
        const isFreed = trims.ranges.some(
          ([at, length]) => at < offsetBytes + data.length && offsetBytes < at + length,
        );
        return isFreed
          ? Promise.reject(new Error(`${offsetBytes} was freed`))
          : reader.read(data, offsetBytes);
      },
    };
  };
}

test("an export reads nothing that it has freed, and is refused if others free", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  const copied = async (): Promise<Trims> => {
    const trims = new Trims();
    trims.onTrim = (_, lengthBytes) => {
      machine.freedBytes += lengthBytes;
    };
    await exportRaw({ ...optionsOf(machine, trims), open: openChecked(trims) });
    assert.ok(readFileSync(machine.path("copy")).equals(machine.content));
    return trims;
  };
  await copied();
  machine.write(CHUNK + 70_000, randomBytes(100));
  const { ranges } = await copied();
  assert.not.ok(ranges.some(([at, length]) => at + length > CAPACITY_BYTES));
  machine.write(0, randomBytes(100));
  const foreign = new Trims();
  foreign.onTrim = (_, lengthBytes) => {
    machine.freedBytes += lengthBytes + 4096;
  };
  const failure = await failureOf(exportRaw(optionsOf(machine, foreign)));
  assert.is(failure.code, "IMAGE_FAILED");
  machine.remove();
});

test("the snapshot of an export is not read by another one", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.take();
  machine.isReadOnly = true;
  machine.isReleasable = true;
  const failure = await failureOf(exportRaw(optionsOf(machine, new Trims())));
  assert.is(failure.code, "DEVICE_IN_OTHER_SNAPSHOT");
  const { hint = "" } = failure as Error & { hint?: string };
  assert.match(hint, `If it was killed: blksnapctl snapshot_destroy --id ${machine.snapshotId}`);
  assert.is(machine.destroyed, 0);
  machine.remove();
});

test.run();
