import { test } from "uvu";
import * as assert from "uvu/assert";
import { growthOf } from "../../dist/device-mapper/table-growth.js";

const LINEAR = "0 1000 linear 8:0 2048";

test("a table that was reloaded, or has more behind its end, leads to the same data", () => {
  assert.is(growthOf(LINEAR, LINEAR), "same");
  assert.is(growthOf("0 1500 linear 8:0 2048", LINEAR), "grown");
  assert.is(growthOf(`${LINEAR}\n1000 500 linear 8:16 0`, LINEAR), "grown");
  assert.is(growthOf("0 1500 thin 254:2 1", "0 1000 thin 254:2 1"), "grown");
  const two = `${LINEAR}\n1000 8 striped 2 8 8:0 0 8:16 0`;
  assert.is(growthOf(two.replace("1000 8", "1000 16"), two), "grown");
});

test("any other table does not", () => {
  for (const now of [
    "",
    "0 900 linear 8:0 2048",
    "0 1000 linear 8:16 2048",
    "0 1500 linear 8:0 4096",
    "0 1000 linear 259:0 0",
    "0 1000 snapshot-origin 254:4",
    `${LINEAR}\n1000 500 error`,
    "0 1000 striped 2 8 8:0 0 8:16 0",
    "0 1000 thin 254:2 1",
  ]) {
    assert.is(growthOf(now, LINEAR), undefined, now);
  }
  const thin = "0 1000 thin 254:2 1";
  assert.is(growthOf("0 1000 thin 254:2 2", thin), undefined, "another volume of the pool");
  const two = `${LINEAR}\n1000 500 linear 8:16 0`;
  assert.is(growthOf("0 1500 linear 8:0 2048", two), undefined, "its second half leads elsewhere");
  assert.is(growthOf(LINEAR, two), undefined);
  assert.is(growthOf(LINEAR, ""), undefined);
});

test.run();
