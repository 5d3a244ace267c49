import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  claimInHelper,
  commandInHelper,
  extentsInHelper,
  type FileStatus,
  fsyncInHelper,
  holesInHelper,
  LockedHelper,
  loopsInHelper,
  MappedMemory,
  openInHelper,
  type PartRead,
  readInHelper,
  statInHelper,
  syncInHelper,
  tryFlock,
  writeInHelper,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { withFolderMeanwhile } from "./support.js";

/** Ends only what hangs. */
const LIMIT_MS = 200_000;
const ENOENT = 2;
const ENOTDIR = 20;
const ENOTTY = 25;
const ETIMEDOUT = 110;
const EISDIR = 21;
const EOPNOTSUPP = 95;
const EXTENT_LAST = 1;

test("results of the other process are returned", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "before");
    assert.is(await writeInHelper(path, "after"), 5);
    assert.is(readFileSync(path, "utf8"), "aftere");
    assert.is(await fsyncInHelper(path), 0);
    assert.is(await claimInHelper(path), 0);
    const none = join(folder, "none");
    assert.equal(
      [await writeInHelper(none, ""), await fsyncInHelper(none), await claimInHelper(none)],
      [-ENOENT, -ENOENT, -ENOENT],
    );
    assert.is(await extentsInHelper(none), -ENOENT);
  });
});

test("extents of a file are those of its data, holes left out", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    const fd = openSync(path, "w");
    writeSync(fd, Buffer.alloc(8192, 1), 0, 8192, 1 << 20);
    closeSync(fd);
    const found = await extentsInHelper(path);
    // A file system that keeps no such list says so.
    assert.type(found, "object");
    if (typeof found === "number") return;
    const { dev, mode } = statSync(path);
    assert.equal([found.device, found.mode], [dev, mode]);
    if (found.status < 0) return assert.is(found.status, -EOPNOTSUPP);
    const lengths = found.extents.map(({ lengthBytes }) => lengthBytes);
    assert.is(
      lengths.reduce((sum, length) => sum + length, 0n),
      8192n,
    );
    const flags = found.extents.at(-1)?.flags ?? 0;
    assert.is(flags & EXTENT_LAST, EXTENT_LAST);
    const { extents } = (await extentsInHelper("/dev/null")) as { extents: readonly unknown[] };
    assert.equal(extents, []);
  });
});

test("holes of a file are what nothing was written to, but for small ones", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    const fd = openSync(path, "w");
    for (const at of [1 << 20, (1 << 20) + 8192]) writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, at);
    ftruncateSync(fd, 3 << 20);
    closeSync(fd);
    const holes = await holesInHelper(path, LIMIT_MS);
    assert.instance(holes, Float64Array);
    assert.equal([...(holes as Float64Array)], [0, 1 << 20, (1 << 20) + 12288, 3 << 20]);
    writeFileSync(path, Buffer.alloc(1 << 20, 1));
    assert.equal(await holesInHelper(path, LIMIT_MS), new Float64Array(0));
    assert.is(await holesInHelper("/dev/null", LIMIT_MS), -ENOTTY);
    assert.is(await holesInHelper(join(folder, "none"), LIMIT_MS), -ENOENT);
    // In no time nothing is found, and nothing is wrong.
    assert.equal(await holesInHelper(path, 0), new Float64Array(0));
  });
});

test("the target of a path agrees with node:fs", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "two\nlines, and a blank ");
    writeFileSync(path, "");
    const link = join(folder, "link");
    symlinkSync(path, link);
    const file = (await statInHelper(link, LIMIT_MS)) as FileStatus;
    const { dev, ino, mode } = statSync(path);
    assert.equal(file, { device: dev, inode: ino, mode, special: 0, realPath: path });
    const device = (await statInHelper("/dev/null", LIMIT_MS)) as FileStatus;
    assert.equal([device.special, device.realPath], [statSync("/dev/null").rdev, "/dev/null"]);
    assert.is(await statInHelper(join(folder, "none"), LIMIT_MS), -ENOENT);
    assert.is(await statInHelper(join(path, "below"), LIMIT_MS), -ENOTDIR);
  });
});

test("a part of a file or device is read", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "0123456789");
    const part = (await readInHelper(path, 3, 4, LIMIT_MS)) as PartRead;
    assert.equal([part.special, part.bytes.toString()], [0, "3456"]);
    const end = (await readInHelper(path, 8, 4, LIMIT_MS)) as PartRead;
    assert.is(end.bytes.toString(), "89");
    assert.is(((await readInHelper(path, 10, 4, LIMIT_MS)) as PartRead).bytes.length, 0);
    const zero = (await readInHelper("/dev/zero", 0, 4096, LIMIT_MS)) as PartRead;
    assert.equal([zero.special, zero.bytes], [statSync("/dev/zero").rdev, Buffer.alloc(4096)]);
    assert.is(await readInHelper(join(folder, "none"), 0, 1, LIMIT_MS), -ENOENT);
    assert.is(await readInHelper(folder, 0, 1, LIMIT_MS), -EISDIR);
  });
});

/** The processes that make calls for this one. */
function callers(): string[] {
  return readFileSync(`/proc/self/task/${process.pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter((pid) => pid !== "");
}

/** Not an equal list: one that was left by an earlier call may still be on its way out. */
function callersBesides(known: readonly string[]): string[] {
  return callers().filter((pid) => !known.includes(pid));
}

test("one process makes call after call, and several make calls beside each other", async () => {
  await statInHelper("/", LIMIT_MS);
  const before = callers();
  for (let i = 0; i < 20; i++) await statInHelper("/", LIMIT_MS);
  assert.equal(callersBesides(before), []);
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => statInHelper("/", LIMIT_MS) as Promise<FileStatus>),
  );
  assert.ok(answers.every(({ realPath }) => realPath === "/"));
});

test("a call with a NUL in a path is refused, and costs no process", async () => {
  await statInHelper("/", LIMIT_MS);
  const before = callers();
  for (let i = 0; i < 3; i++) {
    const error = await statInHelper("/a\0b", LIMIT_MS).catch((thrown) => thrown);
    assert.instance(error, RangeError);
  }
  await statInHelper("/", LIMIT_MS);
  assert.equal(callersBesides(before), []);
});

test("a call that times out does not get the answer of another", async () => {
  await withFolderMeanwhile(async (folder) => {
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    // Waits for a writer to the pipe.
    assert.is(await claimInHelper(pipe, 20), -ETIMEDOUT);
    const path = join(folder, "file");
    writeFileSync(path, "");
    assert.equal(
      [await claimInHelper(path, LIMIT_MS), await openInHelper(join(folder, "none"), LIMIT_MS)],
      [0, -ENOENT],
    );
  });
});

test("a response may have any length", async () => {
  await withFolderMeanwhile(async (folder) => {
    const none = Array.from({ length: 20_000 }, (_, index) => join(folder, String(index)));
    assert.equal(await loopsInHelper([...none, "/dev/null"], LIMIT_MS), [
      ...none.map(() => -ENOENT),
      -ENOTTY,
    ]);
    assert.equal(await loopsInHelper([], LIMIT_MS), []);
  });
});

test("file systems are synced concurrently, each with its own result", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "");
    const paths = [folder, join(folder, "none"), path, join(path, "below")];
    assert.equal(await syncInHelper(paths, LIMIT_MS), [0, -ENOENT, 0, -ENOTDIR]);
    assert.equal(await syncInHelper([], LIMIT_MS), []);
  });
});

test("a command that a file does not take, and one that is too long", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "");
    assert.is(await commandInHelper(path, 1, new Uint8Array(80)), -EOPNOTSUPP);
    const tooLong = await commandInHelper(path, 1, new Uint8Array(81)).catch((error) => error);
    assert.instance(tooLong, RangeError);
  });
});

test("memory for the kernel is not in child processes", () => {
  const memory = MappedMemory.anonymous(1 << 20);
  const start = memory.address.toString(16);
  const text = readFileSync("/proc/self/smaps", "utf8");
  const area = text.slice(text.indexOf(`\n${start.padStart(8, "0")}`));
  const [, flags = ""] = /^VmFlags: (.*)$/m.exec(area) ?? [];
  assert.ok(flags.split(" ").includes("dc"), flags);
  memory.unmap();
});

test("a dedicated process makes one call after the other, and has a successor", async () => {
  const helper = new LockedHelper();
  const ask = async (path: string) => (await helper.ask(["open", path], 60_000))[0];
  assert.equal(await Promise.all([ask("/"), ask("/nonexistent"), ask("/")]), ["0", "-2", "0"]);
  helper.end();
  assert.is(await ask("/"), "0");
  await helper.ask(["open", "a\0b"], 60_000).then(
    () => assert.unreachable("no such word can be sent"),
    (error) => assert.instance(error, RangeError),
  );
  assert.is(await ask("/"), "0");
  helper.end();
});

test("flock(2) is held by one descriptor at a time", () => {
  const path = join(mkdtempSync(join(tmpdir(), "flock-")), "lock");
  const [one, other] = [openSync(path, "a"), openSync(path, "a")];
  assert.equal([tryFlock(one), tryFlock(one), tryFlock(other)], [true, true, false]);
  closeSync(one);
  assert.ok(tryFlock(other));
  closeSync(other);
  assert.throws(() => tryFlock(-1), /cannot lock the file/);
});

test.run();
