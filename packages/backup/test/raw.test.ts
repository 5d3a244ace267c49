import { randomBytes } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportRaw, type RawExportOptions } from "../dist/export-raw.js";
import { exportToStore } from "../dist/export-store.js";
import { recordPathOf } from "../dist/raw-record.js";
import { differences, restore } from "../dist/restore.js";
import { openImage } from "../dist/source.js";
import { BackupStore } from "../dist/store.js";
import { verifyRaw } from "../dist/verify-copies.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 8 * MIB + 65_536;

function optionsOf(machine: FakeMachine, more: Partial<RawExportOptions> = {}): RawExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, target: machine.path("copy"), ...more };
}

/** Fails at the read of this number. */
function failingAt(number: number): RawExportOptions["open"] {
  let reads = 0;
  return async (path) => {
    const image = await openImage(path);
    return {
      ...image,
      read: (data, offsetBytes) => {
        if (++reads >= number) return Promise.reject(new Error("a planted fault"));
        return image.read(data, offsetBytes);
      },
    };
  };
}

test("a raw copy is updated in place with the changes", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(3 * MIB));
  assert.is((await exportRaw(optionsOf(machine))).kind, "full");
  await assertSame(machine.path("copy"), machine.content);
  machine.write(4 * MIB - 65_536, randomBytes(131_072));
  machine.discard(0, 65_536);
  const { kind, read_bytes } = await exportRaw(optionsOf(machine));
  assert.is(kind, "incremental");
  assert.is(read_bytes, 131_072);
  await assertSame(machine.path("copy"), machine.content);
  machine.remove();
});

test("threads write the same copy as the caller's thread: holes, an end within a page, and zeros over data", async () => {
  const capacityBytes = CAPACITY_BYTES + 512;
  const machine = new FakeMachine(capacityBytes);
  const options = () => optionsOf(machine, { threadsMinBytes: 0 });
  machine.write(MIB, randomBytes(3 * MIB));
  machine.write(capacityBytes - 4096, randomBytes(4096));
  assert.is((await exportRaw(options())).kind, "full");
  await assertSame(machine.path("copy"), machine.content);
  machine.write(2 * MIB, Buffer.alloc(MIB));
  for (const at of [65_536, 5 * MIB]) machine.write(at, randomBytes(65_536));
  assert.is((await exportRaw(options())).kind, "incremental");
  await assertSame(machine.path("copy"), machine.content);
  assert.equal((await verifyRaw({ target: machine.path("copy") })).damaged, []);
  machine.remove();
});

test("an interrupted copy does not look complete, and continues from its former state", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  await failureOf(exportRaw(optionsOf(machine, { open: failingAt(2) })));
  assert.not.ok(existsSync(machine.path("copy")));
  assert.not.ok(existsSync(recordPathOf(machine.path("copy"))));
  assert.is((await exportRaw(optionsOf(machine))).kind, "full");
  for (const at of [0, 5 * MIB]) machine.write(at, randomBytes(65_536));
  await failureOf(exportRaw(optionsOf(machine, { open: failingAt(2) })));
  assert.not.ok(existsSync(machine.path("copy")));
  machine.write(6 * MIB, randomBytes(65_536));
  const { kind, read_bytes } = await exportRaw(optionsOf(machine));
  assert.is(kind, "incremental");
  assert.is(read_bytes, 3 * 65_536);
  await assertSame(machine.path("copy"), machine.content);
  assert.not.ok(existsSync(`${machine.path("copy")}.incomplete`));
  machine.remove();
});

/** Exports in full, then an update that is interrupted after its first writes. */
async function leftUpdate(
  machine: FakeMachine,
  more: Partial<RawExportOptions> = {},
): Promise<void> {
  machine.write(0, randomBytes(CAPACITY_BYTES));
  await exportRaw(optionsOf(machine, more));
  for (const at of [0, 5 * MIB]) machine.write(at, randomBytes(65_536));
  await failureOf(exportRaw(optionsOf(machine, { ...more, open: failingAt(2) })));
}

test("an interrupted update is not continued in a foreign file in its place", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const reasons: string[] = [];
  const onPlan: RawExportOptions["onPlan"] = ({ reason }) => reasons.push(String(reason));
  const other = randomBytes(CAPACITY_BYTES);
  const replacements = [
    () => {
      rmSync(`${target}.incomplete`);
      writeFileSync(target, other);
    },
    () => writeFileSync(`${target}.incomplete`, other),
    () => writeFileSync(`${target}.incomplete`, Buffer.concat([other, Buffer.alloc(4096)])),
    () => writeFileSync(target, other),
  ];
  for (const replace of replacements) {
    await leftUpdate(machine);
    replace();
    assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
    assert.match(reasons.at(-1)!, "another program has written");
    await assertSame(target, machine.content);
  }
  machine.remove();
});

test("an update that is killed when its mark is gone, and its result not yet on record, is named as the reason", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const reasons: string[] = [];
  const onPlan: RawExportOptions["onPlan"] = ({ reason }) => reasons.push(String(reason));
  await leftUpdate(machine);
  truncateSync(`${target}.incomplete`, CAPACITY_BYTES);
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
  assert.match(reasons[0]!, "or its last update was killed at its very end");
  await leftUpdate(machine);
  writeFileSync(target, randomBytes(CAPACITY_BYTES));
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
  assert.not.match(reasons[1]!, "killed");
  machine.remove();
});

test("an interrupted update is not continued after a restore to the same path", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const record = machine.path("record");
  const target = machine.path("copy");
  // As large as a file with a mark.
  const other = new FakeMachine(CAPACITY_BYTES + 4096, "/dev/other");
  other.write(0, randomBytes(CAPACITY_BYTES));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(other));
  const lost = point.chunks.at(-1)!;
  rmSync(join(store.path, "chunks", lost.slice(0, 2), `${lost}.zst`));
  for (const isDelta of [false, true]) {
    await leftUpdate(machine, { record });
    await failureOf(restore({ store, point, target, isDelta }));
    assert.not.ok(existsSync(target));
    assert.is((await exportRaw(optionsOf(machine, { record }))).kind, "full");
    await assertSame(target, machine.content);
  }
  machine.remove();
  other.remove();
});

test("an update that is interrupted before its first write causes no full copy", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  await exportRaw(optionsOf(machine));
  const record = JSON.parse(readFileSync(recordPathOf(target), "utf8")) as object;
  writeFileSync(recordPathOf(target), JSON.stringify({ ...record, is_updating: true }));
  machine.write(0, randomBytes(65_536));
  assert.is((await exportRaw(optionsOf(machine))).kind, "incremental");
  await assertSame(target, machine.content);
  machine.remove();
});

test("nothing is restored to the path of a copy, even if the copy is missing", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  await exportRaw(optionsOf(machine));
  for (const isDelta of [false, true]) {
    const refused = await failureOf(restore({ store, point, target, isDelta }));
    assert.match(refused.message, "a raw copy that export keeps");
    if (existsSync(target)) rmSync(target);
  }
  assert.not.ok(existsSync(`${target}.incomplete`));
  machine.remove();
});

test("one writer per file: a second restore or raw export is refused", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const store = await BackupStore.openOrCreate(machine.path("store"));
  machine.write(0, randomBytes(MIB));
  const point = await exportToStore(store, optionsOf(machine));
  const late: { code: string; message: string }[] = [];
  const attempts = (): Promise<unknown> =>
    Promise.all(
      [
        () => restore({ store, point, target }),
        () => exportRaw(optionsOf(machine)),
        () => exportRaw(optionsOf(machine, { record: machine.path("record") })),
      ].map(async (attempt) => late.push(await failureOf(attempt()))),
    );
  // While the first bytes of the restore and then of the export are in flight.
  const slow = await BackupStore.open(store.path);
  slow.readChunk = async (...words) => {
    await attempts();
    return store.readChunk(...words);
  };
  await restore({ store: slow, point, target });
  await assertSame(target, machine.content);
  rmSync(target);
  const open: RawExportOptions["open"] = async (path) => {
    await attempts();
    return openImage(path);
  };
  await exportRaw(optionsOf(machine, { open }));
  await assertSame(target, machine.content);
  assert.equal(
    late.map(({ code }) => code),
    new Array(6).fill("BACKUP_BUSY"),
  );
  assert.match(late[0]!.message, `a restore to ${target}, by process`);
  assert.match(late[3]!.message, `an export to ${target}, by process`);
  assert.not.ok(existsSync(`${target}.incomplete`));
  machine.remove();
});

test("a target behind links is the file that they lead to, which is locked", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const link = machine.path("link");
  const folder = machine.path("folder");
  symlinkSync("folder/../copy", link);
  mkdirSync(folder);
  symlinkSync("..", join(folder, "up"));
  // It leads nowhere yet.
  assert.is((await exportRaw(optionsOf(machine, { target: link }))).kind, "full");
  assert.ok(lstatSync(link).isSymbolicLink());
  assert.ok(existsSync(recordPathOf(target)));
  const late: { code: string }[] = [];
  const others = [target, link, join(folder, "up", "link")];
  const record = machine.path("record");
  const attempts = async (): Promise<void> => {
    assert.not.ok(existsSync(link), "nothing looks complete");
    for (const other of others) {
      late.push(await failureOf(exportRaw(optionsOf(machine, { target: other }))));
      late.push(await failureOf(exportRaw(optionsOf(machine, { target: other, record }))));
    }
  };
  const open: RawExportOptions["open"] = async (path) => {
    const image = await openImage(path);
    let attempted: Promise<void> | undefined;
    const read: typeof image.read = async (...words) => {
      attempted ??= attempts();
      await attempted;
      await image.read(...words);
    };
    return { ...image, read };
  };
  machine.write(5 * MIB, randomBytes(65_536));
  assert.is((await exportRaw(optionsOf(machine, { target: link, open }))).kind, "incremental");
  assert.equal(
    late.map(({ code }) => code),
    new Array(6).fill("BACKUP_BUSY"),
  );
  await assertSame(link, machine.content);
  assert.ok(lstatSync(link).isSymbolicLink());
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const refused = await failureOf(restore({ store, point, target: link, isDelta: true }));
  assert.match(refused.message, "a raw copy that export keeps");
  symlinkSync("round", machine.path("round"));
  const round = await failureOf(exportRaw(optionsOf(machine, { target: machine.path("round") })));
  assert.is(round.code, "TARGET_FAILED");
  machine.remove();
});

test("a copy that others wrote to, or that is gone, is exported again in full, with the reason", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const target = machine.path("copy");
  const reasons: string[] = [];
  const onPlan: RawExportOptions["onPlan"] = ({ reason }) => reasons.push(String(reason));
  await exportRaw(optionsOf(machine));
  writeFileSync(target, Buffer.alloc(CAPACITY_BYTES, 1));
  const wanted = { kind: "since", number: 1 } as const;
  const refused = await failureOf(exportRaw(optionsOf(machine, { wanted })));
  assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
  assert.match(reasons[0]!, "another program has written");
  await assertSame(target, machine.content);
  renameSync(target, machine.path("moved"));
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
  assert.match(reasons[1]!, "is gone");
  machine.remove();
});

test("a copy with a record from an earlier version is made again in full, unless it is of another device", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const other = new FakeMachine(CAPACITY_BYTES, "/dev/other");
  const path = recordPathOf(machine.path("copy"));
  await exportRaw(optionsOf(machine));
  const record = JSON.parse(readFileSync(path, "utf8")) as object;
  const change = (more: object): void =>
    writeFileSync(path, JSON.stringify({ ...record, ...more }));
  change({ version: 1, seal: "of an earlier form" });
  const target = machine.path("copy");
  assert.is((await failureOf(exportRaw(optionsOf(other, { target })))).code, "TARGET_EXISTS");
  const wanted = { kind: "since", number: 1 } as const;
  const refused = await failureOf(exportRaw(optionsOf(machine, { wanted })));
  assert.is(refused.code, "BACKUP_CHAIN_BROKEN");
  const reasons: (string | null)[] = [];
  const onPlan: RawExportOptions["onPlan"] = ({ reason }) => reasons.push(reason);
  machine.write(0, randomBytes(65_536));
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "full");
  assert.is((await exportRaw(optionsOf(machine, { onPlan }))).kind, "incremental");
  assert.equal(reasons, ["its record is from an earlier version", null]);
  await assertSame(target, machine.content);
  change({ version: 3 });
  const later = await failureOf(exportRaw(optionsOf(machine)));
  assert.is(later.code, "BACKUP_VERSION");
  machine.remove();
  other.remove();
});

test("restore --delta writes only blocks that differ; without it no file is overwritten", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(5 * MIB));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const target = machine.path("restored");
  await restore({ store, point, target });
  const spoilt = Buffer.from(machine.content);
  spoilt.fill(7, 4096, 8192);
  spoilt.fill(7, 7 * MIB, 7 * MIB + 1);
  writeFileSync(target, spoilt);
  assert.is((await failureOf(restore({ store, point, target }))).code, "TARGET_EXISTS");
  const { written_bytes } = await restore({ store, point, target, isDelta: true });
  assert.is(written_bytes, 2 * 4096);
  await assertSame(target, machine.content);
  writeFileSync(target, "shorter");
  await restore({ store, point, target, isDelta: true });
  await assertSame(target, machine.content);
  machine.remove();
});

test("an interrupted restore leaves an incomplete target, and can be repeated", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  const store = await BackupStore.openOrCreate(machine.path("store"));
  const point = await exportToStore(store, optionsOf(machine));
  const target = machine.path("restored");
  const interrupt = new AbortController();
  const { signal } = interrupt;
  interrupt.abort();
  assert.is((await failureOf(restore({ store, point, target, signal }))).code, "ABORTED");
  assert.not.ok(existsSync(target));
  await restore({ store, point, target });
  await assertSame(target, machine.content);
  machine.remove();
});

test("differences are in whole blocks, and adjacent ones are merged", () => {
  const wanted = Buffer.alloc(5 * 4096 + 100);
  const found = Buffer.from(wanted);
  assert.equal(differences(wanted, found), []);
  for (const at of [4096, 3 * 4096 - 1, 5 * 4096 + 99]) found[at] = 1;
  assert.equal(differences(wanted, found), [
    { startBytes: 4096, endBytes: 3 * 4096 },
    { startBytes: 5 * 4096, endBytes: 5 * 4096 + 100 },
  ]);
});

test.run();
