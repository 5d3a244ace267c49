import type { BackingFile } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { PresentCapacity } from "../../dist/tracker/present-capacity.js";

const BACKING = { params: { capacityBytes: 4096 } } as BackingFile;

test("an original that does not answer has its last size, and is asked once", async () => {
  const answers: ((bytes: number | Error) => void)[] = [];
  const ask = () =>
    new Promise<number>((resolve, reject) => {
      answers.push((bytes) => (typeof bytes === "number" ? resolve(bytes) : reject(bytes)));
    });
  const capacity = new PresentCapacity(BACKING, ask);
  const first = capacity.get();
  answers[0]?.(8192);
  assert.is(await first, 8192);
  assert.equal(await Promise.all([capacity.get(), capacity.get()]), [8192, 8192]);
  for (let round = 0; round < 100; round++) assert.is(await capacity.get(), 8192);
  assert.is(answers.length, 2);
  answers[1]?.(new Error("ENODEV"));
  await new Promise(setImmediate);
  const gone = capacity.get();
  assert.is(answers.length, 3);
  answers[2]?.(new Error("ENODEV"));
  assert.is(await gone, 0);
});

test.run();
