/** What is left of a growth whose exchange a reactor refuses, or does not answer. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { NoAnswerError } from "@blksnap/data-plane";
import { CbtReason } from "@blksnap/engine";
import * as assert from "uvu/assert";
import { StateFile } from "../../dist/records/file-names.js";
import type { TrackerRecord } from "../../dist/records/records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { createCbt } from "../../dist/tracker/cbt-file.js";
import { growFront } from "../../dist/tracker/growth.js";
import { TrackerMap } from "../../dist/tracker/tracker-map.js";
import { NO_LOSS } from "../../dist/tracker/tracker-record.js";
import type { Undo } from "../../dist/tracker/undo.js";
import {
  CAPACITY_BYTES,
  CHUNK_SHIFT,
  persistenceSuite,
  type World,
} from "../support/persistence-world.js";

const test = persistenceSuite("growth");

const ID = 3;
const GROWN_BYTES = 2 * CAPACITY_BYTES;
const GEOMETRY = {
  capacityBytes: CAPACITY_BYTES,
  logicalBlockBytes: 512,
  chunkShift: CHUNK_SHIFT,
  blockShift: 12,
};

/** @param answer of the reactor to the request to grow, or its error */
async function growing(world: World, answer: () => unknown) {
  const path = join(world.root, "run");
  mkdirSync(path);
  const state = new StateDirectory(path);
  const context = {
    state,
    logger: { error: () => undefined },
    holdTimeoutMs: 1,
    parameters: {
      trackingBlockMinimumShift: 16,
      trackingBlockMaximumShift: 26,
      trackingBlockMaximumCount: 2 ** 21,
      chunkMinimumShift: CHUNK_SHIFT,
      chunkMaximumShift: 26,
      chunkMaximumCountShift: 21,
    },
    reactors: { request: async () => answer() },
  };
  const undo: Undo = [];
  const made = await createCbt(context as never, ID, GEOMETRY, CbtReason.ATTACHED, undo);
  const map = new TrackerMap({ ...made, geometry: GEOMETRY });
  const front = {
    ...{ id: 0, isLive: true, hasZeroCopy: false, capacityBytes: CAPACITY_BYTES },
    grow: async (bytes: number) => {
      front.capacityBytes = bytes;
    },
  };
  const tracker = {
    ...{ id: ID, identity: "file:1", device: world.backing.path, backing: world.backing },
    ...{ geometry: GEOMETRY, reactor: 0, loss: NO_LOSS, isEnding: false, front },
    presentCapacityBytes: async () => GROWN_BYTES,
  };
  const grow = () => growFront(context as never, tracker as never, map, undefined);
  /** As when another program has ended it; see Tracker.noteFrontEnd(). */
  const endFront = () => {
    front.isLive = false;
    state.removeRecord(StateFile.trackerRecord.name(ID));
  };
  const recordedBytes = () => {
    const [found] = state.readRecords(StateFile.trackerRecord.name(ID));
    return (found as { value?: TrackerRecord } | undefined)?.value?.geometry.capacityBytes;
  };
  const maps = () => state.fileNames().filter((name) => name.startsWith("cbt-"));
  return { grow, map, front, tracker, endFront, recordedBytes, maps, close: () => state.close() };
}

const noAnswer = (isTaken: boolean) => () => {
  throw new NoAnswerError("reactor 0 did not answer", isTaken);
};

for (const [what, answer] of [
  ["refuses it", () => ({ why: "writes in flight did not end in time" })],
  ["has not taken it", noAnswer(false)],
] as const) {
  test(`a reactor that ${what}: nothing has changed`, async (world) => {
    const { grow, map, front, recordedBytes, maps, close } = await growing(world, answer);
    assert.ok(await grow().catch((error) => error));
    assert.equal(
      [map.geometry.capacityBytes, front.capacityBytes],
      [CAPACITY_BYTES, CAPACITY_BYTES],
    );
    assert.is(recordedBytes(), CAPACITY_BYTES);
    assert.is(map.cbt.info().corrupted, false);
    assert.equal(maps(), [StateFile.cbtMap.name(ID)]);
    close();
  });
}

for (const [when, answer] of [
  ["before a reactor that refuses it answers", () => ({ why: "writes in flight did not end" })],
  ["before a reactor that has done it answers", () => ({ why: undefined })],
] as const) {
  test(`a front that another program ends ${when} stays off the record`, async (world) => {
    let end: () => void = () => undefined;
    const grown = await growing(world, () => {
      end();
      return answer();
    });
    end = grown.endFront;
    await grown.grow().catch((error) => error);
    assert.is(grown.recordedBytes(), undefined);
    grown.close();
  });
}

test("a front that another program ends while its new map is made stays off the record", async (world) => {
  const grown = await growing(world, () => ({ why: undefined }));
  grown.tracker.presentCapacityBytes = async () => {
    grown.endFront();
    return GROWN_BYTES;
  };
  await grown.grow().catch((error) => error);
  assert.is(grown.recordedBytes(), undefined);
  grown.close();
});

test("a reactor that has taken it may use either map: none is read, and the next growth mends it", async (world) => {
  let answer: () => unknown = noAnswer(true);
  const grown = await growing(world, () => answer());
  const { grow, map, front, recordedBytes, maps, close } = grown;
  const { cbt: before } = map;
  assert.ok(await grow().catch((error) => error));
  assert.is(map.cbt.info().corrupted, true);
  assert.is(front.capacityBytes, CAPACITY_BYTES, "users see no size that is perhaps not served");
  // The next daemon begins a new generation: its map is of another size.
  assert.equal([recordedBytes(), maps()], [GROWN_BYTES, [StateFile.cbtMap.name(ID)]]);
  answer = () => ({ why: undefined });
  await grow();
  assert.is(map.cbt.info().corrupted, false);
  assert.is(map.cbt.info().reason, CbtReason.CAPACITY_CHANGED);
  assert.equal([map.geometry.capacityBytes, front.capacityBytes], [GROWN_BYTES, GROWN_BYTES]);
  assert.equal([map.cbt.capacityBytes, before.isMapped], [GROWN_BYTES, false]);
  assert.equal([recordedBytes(), maps()], [GROWN_BYTES, [StateFile.cbtMap.name(ID)]]);
  close();
});

test.run();
