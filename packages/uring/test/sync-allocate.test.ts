import { closeSync, openSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  FallocateMode,
  FsyncFlag,
  prepareFallocate,
  prepareFsync,
  prepareWritebackError,
  Ring,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { popCompletions, withFolder } from "./support.js";

test("fsync and fdatasync complete with 0", () => {
  withFolder((folder) => {
    const ring = new Ring({ entries: 8 });
    const fd = openSync(join(folder, "file"), "w");
    prepareFsync(ring, fd, 0, 1, 0, 0);
    prepareFsync(ring, fd, FsyncFlag.DATASYNC, 2, 0, 0);
    assert.equal(
      popCompletions(ring, 2).map(({ result }) => result),
      [0, 0],
    );
    closeSync(fd);
    ring.close();
  });
});

test("of a file whose data could be written back there is no error", () => {
  withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "x".repeat(8192));
    const ring = new Ring({ entries: 8 });
    const fd = openSync(path, "r");
    prepareWritebackError(ring, fd, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 0);
    closeSync(fd);
    ring.close();
  });
});

test("fallocate grows a file and punches holes into it", () => {
  withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "x".repeat(8192));
    const ring = new Ring({ entries: 8 });
    const fd = openSync(path, "r+");
    prepareFallocate(ring, fd, 0, 0, 0, 1 << 20, 0, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 0);
    assert.is(statSync(path).size, 1 << 20);
    const punch = FallocateMode.PUNCH_HOLE | FallocateMode.KEEP_SIZE;
    prepareFallocate(ring, fd, punch, 4096, 0, 4096, 0, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 0);
    const text = readFileSync(path);
    assert.ok(text.subarray(0, 4096).every((byte) => byte === 120));
    assert.ok(text.subarray(4096).every((byte) => byte === 0));
    closeSync(fd);
    ring.close();
  });
});

test.run();
