import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import {
  FallocateMode,
  high32,
  LINK_TORN,
  low32,
  MappedMemory,
  PromiseRing,
  prepareCancel,
  prepareFallocate,
  prepareFsync,
  prepareMessage,
  prepareNop,
  prepareRead,
  prepareReadFixed,
  prepareTimeout,
  prepareWrite,
  Ring,
  SetupFlag,
  SqeFlag,
} from "@blksnap/uring";
import { native } from "@blksnap/uring/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Both, onBoth, onMachine, outcome } from "./both.js";

const { IO_LINK, FIXED_FILE, CQE_SKIP_SUCCESS } = SqeFlag;
const ECANCELED = 125;
const { O_RDWR, O_CREAT, O_RDONLY } = constants;

/** Completions in order, each as [user data, result]; those in any order sorted by user data. */
function reap(ring: Ring, count: number): [number, number][] {
  const seen: [number, number][] = [];
  while (seen.length < count) {
    ring.submitAndWait(1);
    while (ring.ready() > 0) {
      const cqe = ring.headIndex();
      seen.push([ring.cqes32[cqe], ring.cqes32[cqe + 2]]);
      ring.advance();
    }
  }
  return seen.sort(([one], [other]) => one - other);
}

interface Setup extends Both {
  readonly ring: Ring;
  readonly memory: MappedMemory;
  readonly fd: number;
  readonly path: string;
}

/** A file of 1000 bytes, a page of memory and a ring. */
function withFile(use: (setup: Setup) => void): Promise<void> {
  return onBoth((both) => {
    const path = join(both.folder, "file");
    writeFileSync(path, new Uint8Array(1000).fill(7));
    const fd = openSync(path, O_RDWR);
    const ring = new Ring({ entries: 16 });
    const memory = MappedMemory.anonymous(4096);
    use({ ...both, ring, memory, fd, path });
    ring.close();
    memory.unmap();
    closeSync(fd);
  });
}

test("reads end at the end of the file, and writes extend it", async () => {
  await withFile(({ ring, memory, fd, saw }) => {
    const [low, high] = [low32(memory.address), high32(memory.address)];
    prepareRead(ring, fd, low, high, 4096, 0, 0, 1, 0, IO_LINK);
    saw("a short read, and nothing linked", reap(ring, 1));
    prepareRead(ring, fd, low, high, 100, 2000, 0, 2, 0, 0);
    saw("beyond the end", reap(ring, 1));
    prepareWrite(ring, fd, low, high, 500, 3000, 0, 0, 3, 0, 0);
    saw("a write", reap(ring, 1));
    saw("the size", fstatSync(fd).size);
    prepareRead(ring, fd, low, high, 4096, 0, 0, 4, 0, 0);
    saw("all of it", reap(ring, 1));
    saw("the bytes", Buffer.from(memory.buffer.slice(0, 3500)).toString("base64"));
  });
});

test("a chain continues after complete successes, and is cancelled after anything else", async () => {
  await withFile(({ ring, memory, fd, saw }) => {
    const [low, high] = [low32(memory.address), high32(memory.address)];
    prepareRead(ring, fd, low, high, 1000, 0, 0, 1, 0, IO_LINK);
    prepareWrite(ring, fd, low, high, 1000, 1000, 0, 0, 2, 0, IO_LINK);
    prepareFsync(ring, fd, 0, 3, 0, 0);
    saw("whole", reap(ring, 3));
    prepareRead(ring, fd, low, high, 4000, 0, 0, 1, 0, IO_LINK);
    prepareWrite(ring, fd, low, high, 1000, 1000, 0, 0, 2, 0, IO_LINK);
    prepareNop(ring, 3, 0, 0);
    saw("a short read", reap(ring, 3));
    prepareRead(ring, -1, low, high, 10, 0, 0, 1, 0, IO_LINK);
    prepareNop(ring, 2, 0, IO_LINK);
    prepareNop(ring, 3, 0, 0);
    prepareNop(ring, 4, 0, 0);
    saw("no such file", reap(ring, 4));
    prepareNop(ring, 1, 0, CQE_SKIP_SUCCESS | IO_LINK);
    prepareNop(ring, 2, 0, 0);
    saw("a success that is not told", reap(ring, 1));
  });
});

test("errors have the same errno", async () => {
  await withFile(({ ring, memory, fd, path, saw }) => {
    const [low, high] = [low32(memory.address), high32(memory.address)];
    const readOnly = openSync(path, O_RDONLY);
    prepareWrite(ring, readOnly, low, high, 10, 0, 0, 0, 1, 0, 0);
    prepareFallocate(ring, readOnly, 0, 0, 0, 4096, 0, 2, 0, 0);
    prepareRead(ring, fd, 8, 0, 10, 0, 0, 3, 0, 0);
    prepareFallocate(ring, fd, 0x7000, 0, 0, 4096, 0, 4, 0, 0);
    prepareFallocate(ring, fd, FallocateMode.PUNCH_HOLE, 0, 0, 4096, 0, 5, 0, 0);
    prepareRead(ring, 0, low, high, 10, 0, 0, 6, 0, FIXED_FILE);
    saw("results", reap(ring, 6));
    closeSync(readOnly);
  });
});

test("registered files and buffers are used by their index", async () => {
  await withFile(({ ring, memory, fd, saw }) => {
    const [low, high] = [low32(memory.address), high32(memory.address)];
    ring.registerFiles(4);
    ring.registerBuffers(4);
    ring.setFile(2, fd);
    ring.setBuffer(1, memory.address, 1024);
    prepareReadFixed(ring, 2, 1, low, high, 100, 0, 0, 1, 0, FIXED_FILE);
    prepareReadFixed(ring, 2, 1, low, high, 2048, 0, 0, 2, 0, FIXED_FILE);
    prepareReadFixed(ring, 3, 1, low, high, 100, 0, 0, 3, 0, FIXED_FILE);
    saw("results", reap(ring, 3));
    ring.setFile(2, -1);
    prepareReadFixed(ring, 2, 1, low, high, 100, 0, 0, 4, 0, FIXED_FILE);
    saw("one that was taken out", reap(ring, 1));
  });
});

test("space is allocated and punched, and reads as zeroes", async () => {
  await withFile(({ ring, fd, path, saw }) => {
    const { KEEP_SIZE, PUNCH_HOLE } = FallocateMode;
    prepareFallocate(ring, fd, 0, 0, 0, 5000, 0, 1, 0, 0);
    saw("longer", [reap(ring, 1), fstatSync(fd).size]);
    prepareFallocate(ring, fd, KEEP_SIZE | PUNCH_HOLE, 0, 0, 500, 0, 2, 0, 0);
    saw("punched", reap(ring, 1));
    saw("the bytes", readFileSync(path).subarray(0, 1000).toString("base64"));
  });
});

test("timeouts end by themselves, or are cancelled", async () => {
  await withFile(({ ring, memory, saw }) => {
    new BigInt64Array(memory.buffer).set([0n, 1_000_000n, 1000n, 0n]);
    const { address } = memory;
    prepareTimeout(ring, low32(address), high32(address), 1, 0);
    saw("after its time", reap(ring, 1));
    prepareTimeout(ring, low32(address + 16), high32(address + 16), 1, 0);
    prepareCancel(ring, 1, 0, 2, 0);
    saw("cancelled", reap(ring, 2));
    prepareCancel(ring, 1, 0, 3, 0);
    saw("not there", reap(ring, 1));
  });
});

test("a read of an eventfd waits until it is written or cancelled", async () => {
  await withFile(({ ring, memory, saw }) => {
    const [low, high] = [low32(memory.address), high32(memory.address)];
    const counter = native.eventFd(0, 0);
    prepareRead(ring, counter, low, high, 8, 0, 0, 1, 0, 0);
    ring.submit();
    saw("nothing yet", ring.ready());
    writeSync(counter, new BigUint64Array([5n]));
    saw("written", reap(ring, 1));
    saw("the count", new BigUint64Array(memory.buffer)[0]);
    prepareRead(ring, counter, low, high, 8, 0, 0, 2, 0, 0);
    prepareCancel(ring, 2, 0, 3, 0);
    saw("cancelled", reap(ring, 2));
    closeSync(counter);
  });
});

test("a ring sends a completion to another ring", async () => {
  await withFile(({ ring, saw }) => {
    const other = new Ring({ entries: 4 });
    prepareMessage(ring, other.fd, 42, 7, 0, 1, 0);
    saw("sent", reap(ring, 1));
    saw("come", reap(other, 1));
    other.close();
  });
});

test("more completions than a ring has room for are not lost", async () => {
  await withFile(({ ring, saw }) => {
    const small = new Ring({ entries: 4, cqEntries: 4 });
    for (let i = 0; i < 12; i++) prepareNop(small, i, 0, 0);
    small.submit();
    saw("overflow", small.overflowed());
    saw("all", reap(small, 12));
    small.close();
    ring.submit();
  });
});

test("with DEFER_TASKRUN completions appear only to a waiting caller", async () => {
  await onBoth(({ folder, saw }) => {
    const flags = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN;
    const ring = new Ring({ entries: 4, flags });
    ring.registerRingFd();
    const fd = openSync(join(folder, "file"), O_RDWR | O_CREAT);
    prepareFsync(ring, fd, 0, 1, 0, 0);
    ring.submit();
    saw("before", ring.ready());
    saw("after", reap(ring, 1));
    ring.close();
    closeSync(fd);
  });
});

test("operations as promises end, and a closed ring accepts none", async () => {
  await onBoth(async ({ folder, saw }) => {
    const fd = openSync(join(folder, "file"), O_RDWR | O_CREAT);
    const ring = new PromiseRing();
    const sync = (): Promise<number> =>
      ring.submit((target, low, high) => prepareFsync(target, fd, 0, low, high, 0));
    saw("three", await Promise.all([sync(), sync(), sync()]));
    ring.close();
    saw("closed", outcome(sync));
    closeSync(fd);
  });
});

test("a submission that is accepted in part leaves the rest, and a torn chain is cancelled", async () => {
  await onMachine(async (machine) => {
    Object.assign(machine, { partialSubmitOneIn: 2 });
    const ring = new Ring({ entries: 16 });
    let tornChains = 0;
    for (let round = 0; round < 50; round++) {
      for (let i = 0; i < 5; i++) prepareNop(ring, i, 0, i < 4 ? IO_LINK : 0);
      const results = reap(ring, 5);
      const torn = results.findIndex(([, result]) => result !== 0);
      if (torn < 0) continue;
      tornChains++;
      assert.is(results[torn][1], LINK_TORN);
      // A chain may be torn more than once.
      for (const [, result] of results.slice(torn + 1)) {
        assert.ok(result === LINK_TORN || result === -ECANCELED, `${result}`);
      }
    }
    assert.ok(tornChains > 10, `${tornChains} chains were torn`);
    ring.close();
  });
});

test.run();
