import { closeSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import {
  high32,
  low32,
  MappedMemory,
  prepareRead,
  prepareWrite,
  Ring,
  RwFlag,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { at, popCompletions, withFolder } from "./support.js";

const FAR = 5 * 2 ** 40 + 512;

test("what is written beyond 4 TiB reads back from there", () => {
  withFolder((folder) => {
    const ring = new Ring({ entries: 8 });
    const memory = MappedMemory.anonymous(8192);
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(0x5a, 0, 4096);
    const fd = openSync(join(folder, "file"), "w+");
    prepareWrite(ring, fd, ...at(memory), 4096, low32(FAR), high32(FAR), RwFlag.DSYNC, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 4096);
    assert.is(statSync(join(folder, "file")).size, FAR + 4096);
    prepareRead(ring, fd, ...at(memory, 4096), 4096, low32(FAR), high32(FAR), 2, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 4096);
    assert.equal(bytes.subarray(4096), bytes.subarray(0, 4096));
    closeSync(fd);
    memory.unmap();
    ring.close();
  });
});

test("the end of the file reads as 0, a bad descriptor as -EBADF", () => {
  withFolder((folder) => {
    const ring = new Ring({ entries: 8 });
    const memory = MappedMemory.anonymous(4096);
    const fd = openSync(join(folder, "file"), "w+");
    prepareRead(ring, fd, ...at(memory), 4096, 0, 0, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, 0);
    closeSync(fd);
    prepareRead(ring, fd, ...at(memory), 4096, 0, 0, 1, 0, 0);
    assert.is(popCompletions(ring, 1)[0].result, -9);
    memory.unmap();
    ring.close();
  });
});

test.run();
