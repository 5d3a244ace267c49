import fs, {
  closeSync,
  copyFileSync,
  existsSync,
  fstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { presentStateDirectory } from "../../dist/settings.js";

async function withDirectory(
  use: (state: StateDirectory, path: string) => void | Promise<void>,
): Promise<void> {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const state = new StateDirectory(path);
  try {
    await use(state, path);
  } finally {
    state.close();
    rmSync(path, { recursive: true });
  }
}

test("the directory is private, and the folders above it are not, whatever the umask", () => {
  const top = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const umask = process.umask(0o077);
  try {
    new StateDirectory(join(top, "run", "blksnap", "state")).close();
  } finally {
    process.umask(umask);
  }
  const modeOf = (path: string) => statSync(join(top, path)).mode & 0o777;
  assert.equal(["run", "run/blksnap", "run/blksnap/state"].map(modeOf), [0o755, 0o755, 0o700]);
  rmSync(top, { recursive: true });
});

test("the directory of an earlier daemon is used as long as its records are there", () => {
  const before = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const usual = join(before, "state");
  assert.is(presentStateDirectory(usual, before), usual);
  const state = new StateDirectory(before);
  state.writeRecord("tracker-1", { id: 1 });
  assert.is(presentStateDirectory(usual, before), before);
  state.removeRecord("tracker-1");
  state.close();
  assert.is(presentStateDirectory(usual, before), usual);
  rmSync(before, { recursive: true });
});

test("a map that does not fit into memory is refused before anything is written", async () => {
  await withDirectory(async (state, path) => {
    const before = readdirSync(path);
    const failure = await state.createMap("area-1", 2 ** 52).catch((error: Error) => error);
    assert.is((failure as { code?: string }).code, "OUT_OF_MEMORY");
    assert.match((failure as Error).message, /it needs 4503599627370496 bytes/);
    assert.equal(readdirSync(path), before);
    await state.removeMap(await state.createMap("area-1", 4096));
    // For a map that grows, only the memory of its beginning is checked.
    const sparse = await state.createMap("area-2", 2 ** 40, 8192);
    assert.is(fstatSync(sparse.fd).size, 2 ** 40);
    assert.is(sparse.lengthBytes, 2 ** 40);
    assert.ok(fstatSync(sparse.fd).blocks * 512 < 2 ** 20);
    await state.removeMap(sparse);
  });
});

test("a record is read back, replaced and removed", async () => {
  await withDirectory((state) => {
    state.writeRecord("tracker-1", { id: 1, front: 3 });
    state.writeRecord("tracker-1", { id: 1, front: 4 });
    assert.equal(state.readRecords("tracker-"), [
      { name: "tracker-1", value: { id: 1, front: 4 } },
    ]);
    state.removeRecord("tracker-1");
    state.removeRecord("tracker-1");
    assert.equal(state.readRecords("tracker-"), []);
  });
});

/** All ways in which a record's file may be damaged. */
function* damages(whole: Buffer): Generator<[what: string, content: Buffer]> {
  for (let at = 0; at < whole.length; at++) {
    for (const bit of [1, 128]) {
      const damaged = Buffer.from(whole);
      damaged[at] ^= bit;
      yield [`byte ${at} ^ ${bit}`, damaged];
    }
    yield [`cut at ${at}`, whole.subarray(0, at)];
  }
  yield ["zeroes", Buffer.alloc(whole.length)];
  yield ["version", Buffer.from(whole.toString().replace("blksnap-record 1", "blksnap-record 3"))];
}

test("every damaged byte or truncation and a newer version are reported, and other records are read", async () => {
  await withDirectory((state, path) => {
    state.writeRecord("tracker-1", { device: "/dev/vg/one" });
    state.writeRecord("tracker-2", { device: "/dev/vg/two" });
    const file = join(path, "tracker-1.record");
    const whole = readFileSync(file);
    for (const [what, content] of damages(whole)) {
      writeFileSync(file, content);
      writeFileSync(`${file}-copy`, content);
      const [first, second] = state.readRecords("tracker-");
      assert.ok(first?.problem, `${what} went unnoticed`);
      if (what === "version") assert.match(first.problem, "version 3");
      assert.is(second?.problem, undefined);
    }
  });
});

test("a damaged record is read from its copy, with a message, and a damaged copy is harmless", async () => {
  await withDirectory((state, path) => {
    const value = { device: "/dev/vg/one" };
    state.writeRecord("tracker-1", value);
    const file = join(path, "tracker-1.record");
    const whole = readFileSync(file);
    for (const [what, content] of damages(whole)) {
      writeFileSync(file, content);
      const [found] = state.readRecords("tracker-");
      assert.ok(found?.problem === undefined && found?.instead, what);
      assert.equal(found.value, value);
    }
    state.writeRecord("tracker-2", { id: 2 });
    copyFileSync(join(path, "tracker-2.record"), file);
    assert.match(JSON.stringify(state.readRecords("tracker-1")), "it is that of 2");
    state.removeRecord("tracker-2");
    writeFileSync(file, whole);
    writeFileSync(`${file}-copy`, "");
    assert.equal(state.readRecords("tracker-"), [{ name: "tracker-1", value }]);
  });
});

test("a map that belongs to another name is refused", async () => {
  await withDirectory(async (state, path) => {
    closeSync((await state.createMap("cbt-1", 8192)).fd);
    closeSync((await state.createMap("cbt-2", 8192)).fd);
    copyFileSync(join(path, "cbt-2"), join(path, "cbt-1"));
    assert.throws(() => state.openMap("cbt-1"), /damaged, or belongs to another device/);
    closeSync(state.openMap("cbt-2").fd);
    truncateSync(join(path, "cbt-2"), 100);
    assert.throws(() => state.openMap("cbt-2"), /damaged/);
  });
});

test("a second owner is refused by name, and accepted when the first has gone", () => {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const first = new StateDirectory(path);
  try {
    assert.throws(
      () => new StateDirectory(path),
      (error: Error & { code?: string }) => error.code === "ALREADY_RUNNING",
    );
    first.close();
    new StateDirectory(path).close();
  } finally {
    rmSync(path, { recursive: true });
  }
});

test("a map file is made empty, found again and removed", async () => {
  await withDirectory(async (state, path) => {
    const made = await state.createMap("cbt-1", 8192);
    const again = state.openMap("cbt-1");
    assert.is(again.lengthBytes, 8192);
    const content = readFileSync(join(path, "cbt-1"));
    // The end of the first page names its owner.
    assert.ok(content.every((byte, at) => byte === 0 || (at >= 4064 && at < 4096)));
    await state.removeMap(made);
    assert.not.ok(existsSync(join(path, "cbt-1")));
    assert.throws(() => state.openMap("cbt-1"), "ENOENT");
  });
});

test("removing a map frees its memory without blocking the thread", async () => {
  const { closeSync: close } = fs;
  const closed: number[] = [];
  fs.closeSync = (fd: number) => {
    closed.push(fd);
    close(fd);
  };
  syncBuiltinESMExports();
  try {
    await withDirectory(async (state) => {
      const { fd } = await state.createMap("area-1", 8192);
      await state.removeMap({ name: "area-1", fd, lengthBytes: 8192 });
      assert.not.ok(closed.includes(fd), "it is closed on this thread");
      assert.throws(() => fstatSync(fd), /EBADF/);
    });
  } finally {
    fs.closeSync = close;
    syncBuiltinESMExports();
  }
});

test.run();
