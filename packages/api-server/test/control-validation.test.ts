import { daemonSchemas, snapshotSchemas, statusSchemas, trackerSchemas } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepareValidation, validatorOf } from "../dist/validation.js";

test.before(() => prepareValidation());

const all = Object.entries({
  ...trackerSchemas,
  ...snapshotSchemas,
  ...statusSchemas,
  ...daemonSchemas,
});

for (const [name, schema] of all) {
  test(`${name} compiles, and rejects invalid requests and answers`, () => {
    const isValid = validatorOf(schema);
    assert.is(isValid(7), false);
    assert.ok(Array.isArray(isValid.errors), "the faults are told");
  });
}

test("a validator reports only the faults of its last call", () => {
  const isValid = validatorOf({ type: "object", properties: { a: { type: "integer" } } });
  assert.is(isValid({ a: "1" }), false);
  assert.is(isValid({ a: 1 }), true);
  assert.is(isValid.errors ?? null, null);
});

test("an invalid schema throws at its first use", () => {
  const isValid = validatorOf({ type: "no such type" });
  assert.throws(() => isValid({}));
});

test.run();
