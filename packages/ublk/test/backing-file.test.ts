import { spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { openBackingFile, openBackingFileBeside, presentCapacityBytes } from "@blksnap/ublk";
import { tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isError, withFolder } from "./support.js";

function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

test("a regular file has the limits of direct I/O on it", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "file");
    writeFileSync(path, Buffer.alloc(1_000_000));
    const backing = openBackingFile(path);
    assert.is(backing.kind, "file");
    assert.is(backing.deviceNumber, statSync(path).dev);
    const { params } = backing;
    assert.is(params.capacityBytes, 1_000_000 - (1_000_000 % params.logicalBlockBytes));
    assert.ok([512, 4096].includes(params.logicalBlockBytes));
    assert.equal([params.readOnly, params.volatileCache, params.fua], [false, true, false]);
    assert.is(await presentCapacityBytes(backing), params.capacityBytes);
    truncateSync(path, 4 * 65536 + 100);
    assert.is(await presentCapacityBytes(backing), 4 * 65536);
    closeSync(backing.fd);
    const beside = await openBackingFileBeside(path);
    assert.equal(
      { ...beside, fd: 0, params: { ...params, capacityBytes: 4 * 65536 } },
      {
        ...backing,
        fd: 0,
        params: { ...params, capacityBytes: 4 * 65536 },
      },
    );
    const busy = await openBackingFileBeside(path).catch((error: Error) => error);
    assert.ok(isError("BACKING_BUSY", 16, path)(busy as Error), "it is locked");
    closeSync(beside.fd);
    const readOnly = openBackingFile(path, { readOnly: true });
    assert.is(readOnly.params.readOnly, true);
    closeSync(readOnly.fd);
  });
});

test("a path that cannot be served is refused, with code, errno and path, and no descriptor stays", async () => {
  await withFolder(async (folder) => {
    const empty = join(folder, "empty");
    writeFileSync(empty, "");
    const tiny = join(folder, "tiny");
    writeFileSync(tiny, "less than a sector");
    mkdirSync(join(folder, "folder"));
    const fifo = join(folder, "fifo");
    spawnSync("mkfifo", [fifo]);
    const before = openDescriptors();
    for (const [path, code, errno] of [
      [join(folder, "missing"), "BACKING_NOT_FOUND", 2],
      [join(tiny, "below"), "BACKING_FAILED", 20],
      [join(folder, "folder"), "BACKING_UNSUPPORTED", 21],
      [fifo, "BACKING_UNSUPPORTED", 15],
      ["/dev/null", "BACKING_UNSUPPORTED", 15],
      [empty, "BACKING_UNSUPPORTED", 22],
      [tiny, "BACKING_UNSUPPORTED", 22],
    ] as const) {
      assert.throws(() => openBackingFile(path), isError(code, errno, path), path);
      const failure = await openBackingFileBeside(path).catch((error: Error) => error);
      assert.ok(isError(code, errno, path)(failure as Error), path);
    }
    assert.is(openDescriptors(), before);
  });
});

test("a file that another program has locked is busy; readers share", async () => {
  await withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, Buffer.alloc(65_536));
    const other = openSync(path, "r+");
    assert.ok(tryLockFile(other));
    assert.throws(() => openBackingFile(path), isError("BACKING_BUSY", 16, path));
    assert.throws(() => openBackingFile(path, { readOnly: true }), isError("BACKING_BUSY", 16));
    closeSync(other);
    const one = openBackingFile(path, { readOnly: true });
    const two = openBackingFile(path, { readOnly: true });
    assert.throws(() => openBackingFile(path), isError("BACKING_BUSY", 16));
    closeSync(one.fd);
    closeSync(two.fd);
    closeSync(openBackingFile(path).fd);
  });
});

test("a file that may not be opened fails with that reason", async () => {
  await withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, Buffer.alloc(4096));
    const run = spawnSync("chattr", ["+i", path]);
    const refused = run.status === 0 ? path : "/proc/sys/kernel/ostype";
    try {
      assert.throws(
        () => openBackingFile(refused),
        (error: Error) => error.name === "UblkError",
      );
    } finally {
      if (run.status === 0) spawnSync("chattr", ["-i", path]);
    }
  });
});

test.run();
