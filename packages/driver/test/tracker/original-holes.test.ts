/** When originals are searched for holes, and what is remembered. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { OriginalHoles } from "../../dist/tracker/original-holes.js";

const LOOP = 7 * 256;
const DISK = 8 * 256;
const ETIMEDOUT = 110;
/** The limit for what answers. */
const ANSWER_MS = 200_000;
const GENERATION = new Uint8Array(16).fill(3);

function trackerOf(kind: "file" | "block", deviceNumber: number, isBusy = false) {
  const info = () => {
    if (isBusy) throw new Error("the map is being reset");
    return { generation: GENERATION, changesNumber: 4 };
  };
  return { backing: { kind, deviceNumber, fd: 9 }, cbt: { info } } as never;
}

/** Answers each search with the next one. */
function holesWith(...answers: (number | Error | Float64Array)[]) {
  const paths: string[] = [];
  const clock = { nowMs: 0 };
  const look = async (path: string) => {
    paths.push(path);
    const answer = answers.shift();
    if (answer === undefined || answer instanceof Error)
      throw answer ?? new Error("once too often");
    return answer;
  };
  const holes = new OriginalHoles({ look, nowMs: () => clock.nowMs, patienceMs: ANSWER_MS });
  return { holes, paths, clock };
}

const SOME = Float64Array.of(0, 65_536);

test("an image's original is searched once, a front's for each client, one search at a time", async () => {
  const file = trackerOf("file", DISK);
  const { holes, paths } = holesWith(SOME, SOME, SOME);
  const [image, front] = [{}, {}];
  const found = await holes.of(image, file, true);
  assert.equal(found, { ends: SOME, generation: GENERATION, number: 5 });
  assert.is(await holes.of(image, file, true), found);
  assert.equal(paths, [`/proc/${process.pid}/fd/9`]);
  await Promise.all([holes.of(front, file, false), holes.of(front, file, false)]);
  assert.is(paths.length, 2);
  await holes.of(front, file, false);
  assert.is(paths.length, 3);
});

test("of devices, only loop devices are searched", async () => {
  const { holes, paths } = holesWith(SOME);
  assert.is(await holes.of({}, trackerOf("block", DISK), true), null);
  assert.is(paths.length, 0);
  assert.not.equal(await holes.of({}, trackerOf("block", LOOP), true), null);
  assert.is(paths.length, 1);
});

test("an original that does not answer is not searched for a while, and failures are not reported", async () => {
  const file = trackerOf("file", DISK);
  const { holes, paths, clock } = holesWith(-ETIMEDOUT, new Error("no process"), -ETIMEDOUT, SOME);
  const [late, failed, busy] = [{}, {}, {}];
  for (let round = 0; round < 2; round++) {
    assert.is(await holes.of(late, file, false), null);
    assert.is(await holes.of(failed, file, false), null);
    assert.is(await holes.of(busy, trackerOf("file", DISK, true), false), null);
  }
  assert.is(paths.length, 2);
  // Each search leaves a process behind while its medium hangs, so the pauses grow.
  const looks: number[] = [];
  for (clock.nowMs = 0; clock.nowMs <= 200_000; clock.nowMs += 10_000) {
    const before = paths.length;
    await holes.of(late, file, true);
    if (paths.length > before) looks.push(clock.nowMs);
  }
  assert.equal(looks, [60_000, 180_000]);
  assert.is((await holes.of(late, file, true))?.ends, SOME);
});

test("a client waits for a bounded time, and later results go to the next one", async () => {
  const file = trackerOf("file", DISK);
  let answer: (ends: Float64Array) => void = () => undefined;
  let looks = 0;
  const look = () => {
    looks++;
    return new Promise<Float64Array>((resolve) => {
      answer = resolve;
    });
  };
  const holes = new OriginalHoles({ look, patienceMs: 1 });
  for (const isImage of [true, false]) {
    looks = 0;
    const of = {};
    for (let asked = 0; asked < 2; asked++) assert.is(await holes.of(of, file, isImage), null);
    assert.is(looks, 1);
    answer(SOME);
    await new Promise((done) => setImmediate(done));
    assert.is((await holes.of(of, file, isImage))?.ends, SOME);
    assert.is(looks, 1);
    // An image's holes stay true.
    assert.is((await holes.of(of, file, isImage))?.ends, isImage ? SOME : undefined);
    assert.is(looks, isImage ? 1 : 2);
  }
});

test.run();
