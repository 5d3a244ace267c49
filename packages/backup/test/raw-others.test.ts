/** A raw export never overwrites anything but its own copy. */
import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportRaw, type RawExportOptions } from "../dist/export-raw.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 8 * MIB + 65_536;

function optionsOf(machine: FakeMachine, more: Partial<RawExportOptions> = {}): RawExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, target: machine.path("copy"), ...more };
}

test("foreign files, and copies of other devices, are not overwritten", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  writeFileSync(target, "a thesis");
  assert.is((await failureOf(exportRaw(optionsOf(machine)))).code, "TARGET_EXISTS");
  await assertSame(target, Buffer.from("a thesis"));
  const mine = machine.path("mine");
  await exportRaw(optionsOf(machine, { target: mine }));
  const other = new FakeMachine(CAPACITY_BYTES, "/dev/other");
  const refused = await failureOf(exportRaw(optionsOf(other, { target: mine })));
  assert.is(refused.code, "TARGET_EXISTS");
  assert.match(refused.message, "a copy of /dev/vg/data");
  assert.is(
    (await failureOf(exportRaw(optionsOf(machine, { target: "/tmp" })))).code,
    "TARGET_EXISTS",
  );
  machine.remove();
  other.remove();
});

test("a record of a copy elsewhere does not allow overwriting a foreign file", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const record = machine.path("record");
  const [mine, thesis] = [machine.path("mine"), machine.path("thesis")];
  machine.write(0, randomBytes(MIB));
  await exportRaw(optionsOf(machine, { target: mine, record }));
  const remembered = readFileSync(record, "utf8");
  writeFileSync(thesis, "a thesis");
  const refused = async (): Promise<void> => {
    for (const wanted of [{ kind: "auto" }, { kind: "full" }] as const) {
      const error = await failureOf(
        exportRaw(optionsOf(machine, { target: thesis, record, wanted })),
      );
      assert.is(error.code, "TARGET_EXISTS");
      assert.match(error.message, `not the copy that ${record} describes`);
    }
    await assertSame(thesis, Buffer.from("a thesis"));
  };
  await refused();
  assert.is(readFileSync(record, "utf8"), remembered);
  // In the format of earlier programs and versions, which did not name the file.
  const { target: _, ...fields } = JSON.parse(remembered) as Record<string, unknown>;
  for (const change of [{}, { version: 1 }]) {
    writeFileSync(record, JSON.stringify({ ...fields, ...change }));
    await refused();
  }
  // A record of its own file names that, wherever it has gone.
  writeFileSync(record, remembered);
  writeFileSync(mine, "spoilt");
  assert.is((await exportRaw(optionsOf(machine, { target: mine, record }))).kind, "full");
  const moved = machine.path("moved");
  renameSync(mine, moved);
  machine.write(0, randomBytes(65_536));
  const next = await exportRaw(optionsOf(machine, { target: moved, record }));
  assert.is(next.kind, "incremental");
  await assertSame(moved, machine.content);
  machine.remove();
});

test("a copy of another device is not overwritten, even if something has written to it", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const other = new FakeMachine(CAPACITY_BYTES, "/dev/other");
  const target = machine.path("copy");
  await exportRaw(optionsOf(machine));
  const used = Buffer.alloc(CAPACITY_BYTES, 1);
  writeFileSync(target, used);
  for (const wanted of [{ kind: "auto" }, { kind: "full" }] as const) {
    const refused = await failureOf(exportRaw(optionsOf(other, { target, wanted })));
    assert.is(refused.code, "TARGET_EXISTS");
    assert.match(refused.message, "a copy of /dev/vg/data");
  }
  await assertSame(target, used);
  machine.remove();
  other.remove();
});

test.run();
