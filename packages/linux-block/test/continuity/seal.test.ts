import {
  appendFileSync,
  chmodSync,
  closeSync,
  fstatSync,
  linkSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { OwnWriteCounters } from "../../dist/continuity/write-counters.js";
import { readSeal, type Seal, sealNow, writtenSince } from "../../dist/index.js";

const test = suite("seal");
const MIB = 2 ** 20;

let folder: string;
let file: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-seal-"));
  file = join(folder, "store");
  writeFileSync(file, Buffer.alloc(5 * MIB, 7));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** The evidence of changes to the file after it was sealed. */
async function seen(happens: () => void): Promise<string | undefined> {
  const fd = openSync(file, "r+");
  try {
    const before = await sealNow(fd, 0);
    happens();
    return writtenSince(before, await readSeal(fd, 0));
  } finally {
    closeSync(fd);
  }
}

/** Like dd conv=notrunc. */
function writeAt(offsetBytes: number, text = "x"): void {
  const other = openSync(file, "r+");
  writeSync(other, text, offsetBytes);
  closeSync(other);
}

/** A program that restores times does so to the microsecond; Node cannot set nanoseconds. */
function keepingTimes(change: () => void): void {
  const { atimeMs, mtimeMs } = fstatWithin();
  change();
  utimesSync(file, atimeMs / 1000, mtimeMs / 1000);
}

function fstatWithin() {
  const fd = openSync(file, "r");
  const stats = fstatSync(fd);
  closeSync(fd);
  return stats;
}

test("a foreign write to a file is detected", async () => {
  const modified = /^it was modified: its time is \d{4}-.*\.\d{9}Z, and was /;
  assert.match((await seen(() => writeAt(0))) ?? "", modified);
  assert.match((await seen(() => writeAt(2.5 * MIB))) ?? "", modified);
  // The same bytes count, too: they were not compared before.
  assert.match((await seen(() => writeAt(2.5 * MIB, "x"))) ?? "", modified);
  const cut = () => {
    truncateSync(file, 3 * MIB);
    truncateSync(file, 5 * MIB);
  };
  assert.match((await seen(cut)) ?? "", modified);
  assert.is(await seen(() => truncateSync(file, 3 * MIB)), "it had 5242880 bytes and has 3145728");
  assert.is(await seen(() => appendFileSync(file, "more")), "it had 3145728 bytes and has 3145732");
});

test("a file whose inode changed, and not its bytes, counts as unchanged", async () => {
  assert.is(await seen(() => void readFileSync(file)), undefined);
  assert.is(await seen(() => chmodSync(file, 0o640)), undefined);
  assert.is(await seen(() => linkSync(file, `${file}-backup`)), undefined);
  const moved = () => {
    renameSync(file, `${file}-away`);
    renameSync(`${file}-away`, file);
  };
  assert.is(await seen(moved), undefined);
});

test("reset times are detected by the file's first and last bytes", async () => {
  utimesSync(file, 1_700_000_000, 1_700_000_000);
  const edges = "its first or last bytes have changed";
  assert.is(await seen(() => keepingTimes(() => writeAt(1024))), edges);
  assert.is(await seen(() => keepingTimes(() => writeAt(5 * MIB - 1))), edges);
  assert.is(await seen(() => keepingTimes(() => undefined)), undefined);
});

test("a small and an empty file have seals, too", async () => {
  writeFileSync(file, "old");
  assert.ok(await seen(() => writeFileSync(file, "new")));
  writeFileSync(file, "");
  assert.is(await seen(() => undefined), undefined);
});

const COUNTERS: OwnWriteCounters = {
  bootId: "one",
  diskseq: "7",
  writeSectors: 100,
  discardSectors: 10,
};

function device(change: Partial<OwnWriteCounters> = {}, digest = "a", sizeBytes = MIB): Seal {
  return { sizeBytes, digest, mtimeNs: null, counters: { ...COUNTERS, ...change } };
}

test("a device's counters count as long as it is the same incarnation", () => {
  const since = (now: Seal) => writtenSince(device(), now);
  assert.is(since(device()), undefined);
  assert.is(since(device({ writeSectors: 108 })), "8 sectors were written");
  assert.is(since(device({ discardSectors: 11 })), "1 sector was discarded");
  assert.is(since(device({ writeSectors: 99 })), "its write counters were reset");
  // Another boot, or a new setup: counters began then, or continue earlier ones.
  const edges = "its first or last bytes have changed";
  for (const other of [{ bootId: "two" }, { diskseq: "8" }, { diskseq: null }]) {
    for (const writeSectors of [0, 100, 5000]) {
      assert.is(since(device({ ...other, writeSectors })), undefined);
      assert.is(since(device({ ...other, writeSectors }, "b")), edges);
    }
  }
  assert.is(since(device({ writeSectors: null, discardSectors: null })), undefined);
  assert.is(since(device({}, "b")), edges);
  assert.is(since(device({}, "a", 2 * MIB)), "it had 1048576 bytes and has 2097152");
});

test.run();
