/** Which records of volumes that are away are usable. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readReturns } from "../../dist/records/return-records.js";
import { StateDirectory } from "../../dist/records/state-directory.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "", clone: "254:7" };
const GOOD = {
  ...{ device: "/dev/vg/data", front: "/dev/ublkb3", reason: "interrupted", since: "then" },
  live: NODE,
};

function read(value: unknown, name = "return-254:3") {
  const state = new StateDirectory(mkdtempSync(join(tmpdir(), "returns-")));
  state.writeRecord(name, value as object);
  const said: string[] = [];
  const logger = { error: (_: unknown, text: string) => said.push(text) };
  return { records: readReturns({ state, logger } as never), said };
}

test("records of this daemon, and older ones without counted attempts, are usable", () => {
  for (const record of [GOOD, { ...GOOD, unended: 2 }]) {
    assert.equal(read(record), { records: [record], said: [] });
  }
});

test("an incomplete record is reported and not used", () => {
  const { live: _, ...withoutNode } = GOOD;
  const others = [
    withoutNode,
    ...[7, [], { ...GOOD, live: null }, { ...GOOD, live: { ...NODE, number: "254" } }],
    ...[
      { ...GOOD, live: { ...NODE, clone: 7 } },
      { ...GOOD, live: { ...NODE, number: "254:4" } },
    ],
    ...[
      { ...GOOD, device: undefined },
      { ...GOOD, reason: "later" },
      { ...GOOD, since: 0 },
    ],
    ...[
      { ...GOOD, unended: -1 },
      { ...GOOD, unended: "many" },
    ],
  ];
  for (const value of others) {
    const { records, said } = read(value);
    const text = "record return-254:3 is not used: it is not what such a record holds";
    assert.equal([records, said], [[], [text]], JSON.stringify(value));
  }
});

test.run();
