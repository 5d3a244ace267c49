/** The parts of an image that an export frees: only chunks that it does not read any more. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { doneChunks, type ImageTrims } from "../dist/done-chunks.js";
import { exportRaw, type RawExportOptions } from "../dist/export-raw.js";
import type { TakenSnapshot } from "../dist/snapshot.js";
import { type ImageReader, openImage } from "../dist/source.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CHUNK = 4 * MIB;
const CAPACITY_BYTES = 5 * CHUNK + 65_536;

class Trims implements ImageTrims {
  readonly ranges: [number, number][] = [];
  onTrim: (offsetBytes: number, lengthBytes: number) => void = () => undefined;
  isClosed = false;

  async trim(offsetBytes: number, lengthBytes: number): Promise<void> {
    this.onTrim(offsetBytes, lengthBytes);
    this.ranges.push([offsetBytes, lengthBytes]);
  }

  async close(): Promise<void> {
    this.isClosed = true;
  }
}

function snapshotOf(isFreed: boolean): TakenSnapshot {
  const told = { isFreed, exported: "nbd+unix:///image", capacityBytes: CAPACITY_BYTES };
  return told as TakenSnapshot;
}

async function turns(): Promise<void> {
  await nextTurn();
  await nextTurn();
}

test("unread chunks are freed at once, other chunks when their last part is done", async () => {
  const trims = new Trims();
  const parts = [0, MIB, CHUNK, 4 * CHUNK];
  const openTrims = async () => trims;
  const freed = doneChunks(snapshotOf(true), parts, { openTrims });
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
  assert.is(await freed.end(), 3 * CHUNK + 65_536);
  assert.ok(trims.isClosed);
  freed.done(CHUNK);
  await turns();
  assert.is(trims.ranges.length, 3);
});

test("nothing is freed of others' snapshots, and a failure is reported once", async () => {
  const trims = new Trims();
  const openTrims = async () => trims;
  const others = doneChunks(snapshotOf(false), [0], { openTrims });
  others.done(0);
  assert.is(await others.end(), 0);
  assert.equal(trims.ranges, []);
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  trims.onTrim = () => {
    throw new Error("it is gone");
  };
  const own = doneChunks(snapshotOf(true), [0], { openTrims, onNote });
  await turns();
  own.done(0);
  await own.end();
  assert.equal(notes, ["what was read stays in the diff storage until the end: it is gone"]);
});

function optionsOf(machine: FakeMachine, trims: Trims): RawExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here", frees: true };
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
  assert.is(machine.destroyed, 0);
  machine.remove();
});

test.run();
