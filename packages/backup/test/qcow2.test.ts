/** Chains of qcow2 files, checked by QEMU's programs: Debian's qemu-utils. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportQcow2, type Qcow2Export, type Qcow2ExportOptions } from "../dist/export-qcow2.js";
import { openImage } from "../dist/source.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 8 * MIB + 65_536;

function optionsOf(
  machine: FakeMachine,
  more: Partial<Qcow2ExportOptions> = {},
): Qcow2ExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, folder: machine.path("chain"), ...more };
}

function filesOf(machine: FakeMachine): string[] {
  const names = readdirSync(machine.path("chain"));
  return names.filter((name) => name.includes(".qcow2")).sort();
}

interface Point extends Qcow2Export {
  /** The device's content. */
  readonly content: string;
}

async function exported(machine: FakeMachine, more?: Partial<Qcow2ExportOptions>): Promise<Point> {
  const done = await exportQcow2(optionsOf(machine, more));
  const content = machine.path(`content-${done.changes_number}`);
  writeFileSync(content, machine.content);
  return { ...done, content };
}

function judge({ path, content }: Point): void {
  const words = ["compare", "-f", "qcow2", "-F", "raw", path, content];
  assert.match(execFileSync("qemu-img", words, { encoding: "utf8" }), "Images are identical.");
  execFileSync("qemu-img", ["check", "-q", "-f", "qcow2", path]);
}

/** An interruption: the image fails at its read of this number. */
function failingAt(number: number): Qcow2ExportOptions["open"] {
  let reads = 0;
  return async (path) => {
    const image = await openImage(path);
    const read: typeof image.read = (data, offsetBytes) =>
      ++reads >= number
        ? Promise.reject(new Error("a planted fault"))
        : image.read(data, offsetBytes);
    return { ...image, read };
  };
}

test("a full file and overlays: QEMU finds each equal to the device at that time", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(5 * MIB));
  const points = [await exported(machine)];
  for (let round = 0; round < 2; round++) {
    machine.write((2 + 3 * round) * MIB, randomBytes(65_536));
    machine.write(CAPACITY_BYTES - 100, randomBytes(100));
    machine.write(MIB, Buffer.alloc(65_536));
    machine.discard(4 * MIB + round * 65_536, 65_536);
    points.push(await exported(machine));
  }
  assert.equal(
    points.map(({ kind }) => kind),
    ["full", "incremental", "incremental"],
  );
  assert.ok(points[2]!.read_bytes < MIB);
  for (const point of points) judge(point);
  const chain = execFileSync("qemu-img", [
    ...["info", "--backing-chain", "--output=json", points[2]!.path],
  ]);
  assert.is((JSON.parse(chain.toString()) as unknown[]).length, 3);
  // A backing file in the same folder is found after the folder moves.
  const out = execFileSync("qemu-io", [
    "-r",
    "-f",
    "qcow2",
    "-c",
    "read -P 0 1M 64k",
    points[1]!.path,
  ]);
  assert.not.match(out.toString(), /failed|error/i);
  assert.is(filesOf(machine).length, 6);
  machine.remove();
});

test("after an interruption no new file has its name, and earlier points are unchanged", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  await failureOf(exportQcow2(optionsOf(machine, { open: failingAt(2) })));
  assert.equal(filesOf(machine), []);
  const first = await exported(machine);
  const there = filesOf(machine);
  for (const at of [0, 5 * MIB]) machine.write(at, randomBytes(65_536));
  await failureOf(exportQcow2(optionsOf(machine, { open: failingAt(2) })));
  assert.equal(filesOf(machine), there);
  judge(first);
  const second = await exported(machine);
  assert.is(second.read_bytes, 2 * 65_536);
  judge(second);
  machine.remove();
});

test("other users can never read a file, and QEMU without root cannot write a complete one", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const seen = new Set<number>();
  const modeOf = (name: string) => statSync(join(machine.path("chain"), name)).mode & 0o777;
  const onProgress = (): void => {
    for (const name of filesOf(machine)) {
      if (name.endsWith(".incomplete")) seen.add(modeOf(name));
    }
  };
  const before = process.umask(0o022);
  try {
    await exported(machine, { onProgress });
    await exported(machine, { onProgress });
  } finally {
    process.umask(before);
  }
  assert.equal([...seen], [0o600]);
  const points = filesOf(machine).filter((name) => name.endsWith(".qcow2"));
  assert.equal(points.map(modeOf), [0o400, 0o400]);
  machine.remove();
});

test("two exports into one folder at once: the second is refused by name, the first completes", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const late: (Error & { code: string })[] = [];
  const open: Qcow2ExportOptions["open"] = async (path) => {
    late.push(await failureOf(exportQcow2(optionsOf(machine))));
    return openImage(path);
  };
  judge(await exported(machine, { open }));
  assert.equal(
    late.map(({ code }) => code),
    ["BACKUP_BUSY"],
  );
  assert.match(late[0]!.message, `an export to ${machine.path("chain")}, by process`);
  assert.is(filesOf(machine).filter((name) => name.endsWith(".qcow2")).length, 1);
  machine.remove();
});

test("there are no temporary files that a kill would leave behind", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(MIB));
  const scratch = machine.path("scratch");
  mkdirSync(scratch);
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = scratch;
  const seen: string[][] = [];
  const onProgress = (): void => void seen.push(readdirSync(scratch));
  try {
    judge(await exported(machine, { onProgress }));
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
  assert.ok(seen.length > 0);
  assert.equal(seen.flat(), []);
  machine.remove();
});

test("a file that others have written or removed is not used as a backing file", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  const reasons: string[] = [];
  const onPlan: Qcow2ExportOptions["onPlan"] = ({ reason }) => reasons.push(String(reason));
  const first = await exported(machine);
  await exported(machine);
  execFileSync("qemu-io", ["-f", "qcow2", "-c", "write -P 7 0 64k", first.path]);
  const since = { wanted: { kind: "since", number: 2 } } as const;
  const error = await failureOf(exportQcow2(optionsOf(machine, since)));
  assert.is(error.code, "BACKUP_CHAIN_BROKEN");
  const third = await exported(machine, { onPlan });
  assert.is(third.kind, "full");
  assert.match(reasons[0]!, "another program has written to");
  judge(third);
  await exported(machine);
  rmSync(third.path);
  assert.is((await exported(machine, { onPlan })).kind, "full");
  assert.match(reasons[1]!, "is gone");
  machine.remove();
});

test("a wrong place, a damaged record and a missing program are named", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  const folder = machine.path("store");
  mkdirSync(folder);
  writeFileSync(join(folder, "blksnap-backup.json"), "{}");
  assert.is((await failureOf(exportQcow2(optionsOf(machine, { folder })))).code, "TARGET_EXISTS");
  writeFileSync(machine.path("file"), "");
  const file = { folder: machine.path("file") };
  assert.is((await failureOf(exportQcow2(optionsOf(machine, file)))).code, "TARGET_EXISTS");
  const point = await exported(machine);
  appendFileSync(`${point.path}.blksnap.json`, "{");
  assert.is((await failureOf(exportQcow2(optionsOf(machine)))).code, "BACKUP_DAMAGED");
  const path = process.env["PATH"];
  process.env["PATH"] = "/nowhere";
  try {
    const none = await failureOf(exportQcow2(optionsOf(machine, { folder: machine.path("new") })));
    assert.match(none.message, "the program qemu-img is not installed");
  } finally {
    process.env["PATH"] = path;
  }
  assert.ok(existsSync(point.path));
  machine.remove();
});

test.run();
