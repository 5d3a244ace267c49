import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MessageChannel } from "node:worker_threads";
import { FileIo, type Queue, UblkIoFlag, UblkOp } from "@blksnap/ublk";
import { high32, low32, MappedMemory, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { withFolder } from "./support.js";

const EIO = 5;
const EBADF = 9;
const ENOMEM = 12;
const EOPNOTSUPP = 95;
const ECANCELED = 125;

interface Request {
  readonly op: number;
  readonly flags?: number;
  readonly sector: number;
  readonly sectors: number;
}

/**
 * Does requests one after the other on a file of 64 KiB `a`; answers their results.
 * @param refusals in place of the ring's first results
 * @param isBlock whether it is served as a device
 */
async function serve(
  requests: readonly Request[],
  look: (content: Buffer, memory: Uint8Array) => void,
  access = "r+",
  refusals: number[] = [],
  isBlock = false,
): Promise<number[]> {
  const results: number[] = [];
  await withFolder((folder) => {
    const path = join(folder, "file");
    writeFileSync(path, "a".repeat(65_536));
    const fd = openSync(path, access);
    const { port1, port2 } = new MessageChannel();
    const wakeFd = openSync("/dev/zero", "r");
    const onError = (error: unknown): never => {
      throw error;
    };
    const reactor = new Reactor({ wakeFd, port: port2, onMessage: () => undefined, onError });
    const addHandler = reactor.addHandler.bind(reactor);
    reactor.addHandler = (handler) =>
      addHandler({
        onCompletion: (data, result, flags) =>
          handler.onCompletion(data, refusals.shift() ?? result, flags),
      });
    const memory = MappedMemory.anonymous(65_536);
    const bytes = new Uint8Array(memory.buffer).fill(98);
    let current = requests[0];
    const queue = {
      depth: 1,
      bufferLow: Int32Array.of(low32(memory.address)),
      bufferHigh: Int32Array.of(high32(memory.address)),
      bufferIndex: Int32Array.of(reactor.addBuffer(memory.address, memory.lengthBytes)),
      op: () => current.op,
      flags: () => current.flags ?? 0,
      sectors: () => current.sectors,
      startSectorLow: () => low32(current.sector),
      startSectorHigh: () => high32(current.sector),
    } as unknown as Queue;
    const io: FileIo = new FileIo(reactor, queue, fd, isBlock, {
      onFileIo(_tag, result) {
        results.push(result);
        if (results.length === requests.length) {
          io.close();
          reactor.stop();
          return;
        }
        current = requests[results.length];
        io.submit(0);
      },
    });
    io.submit(0);
    reactor.run();
    look(readFileSync(path), bytes);
    memory.unmap();
    port1.close();
    closeSync(wakeFd);
    closeSync(fd);
  });
  return results;
}

test("reads and writes go where their sectors are", async () => {
  const requests = [
    { op: UblkOp.READ, sector: 0, sectors: 1 },
    { op: UblkOp.WRITE, sector: 8, sectors: 16 },
    { op: UblkOp.WRITE, flags: UblkIoFlag.FUA, sector: 127, sectors: 1 },
    { op: UblkOp.FLUSH, sector: 0, sectors: 0 },
  ];
  const results = await serve(requests, (content, memory) => {
    assert.is(memory[511], 97);
    assert.is(memory[512], 98);
    assert.is(content[4095], 97);
    assert.is(content[4096], 97);
    assert.is(content[4096 + 512], 98);
    assert.is(content[4096 + 8191], 98);
    assert.is(content[4096 + 8192], 97);
    assert.is(content.length, 65_536);
  });
  assert.equal(results, [512, 8192, 512, 0]);
});

test("a short transfer is -EIO", async () => {
  const requests = [
    { op: UblkOp.READ, sector: 120, sectors: 16 },
    { op: UblkOp.READ, sector: 128, sectors: 8 },
  ];
  assert.equal(await serve(requests, () => undefined), [-EIO, -EIO]);
});

test("an error of the file is the request's", async () => {
  const requests = [{ op: UblkOp.WRITE, sector: 0, sectors: 8 }];
  assert.equal(await serve(requests, () => undefined, "r"), [-EBADF]);
});

test("a request that the ring could not start is retried", async () => {
  const requests = [
    { op: UblkOp.WRITE, sector: 8, sectors: 8 },
    { op: UblkOp.FLUSH, sector: 0, sectors: 0 },
    { op: UblkOp.DISCARD, sector: 16, sectors: 8 },
    { op: UblkOp.READ, sector: 120, sectors: 8 },
  ];
  const refusals = [-ECANCELED, 4096, -ECANCELED, -ECANCELED, 0, -ENOMEM, -ENOMEM];
  assert.equal(await serve(requests, () => undefined, "r+", refusals), [4096, 0, 0, 4096]);
  assert.equal(refusals, []);
});

test("a file that could not write for want of memory is not asked until it says that all is well", async () => {
  const requests = [{ op: UblkOp.FLUSH, sector: 0, sectors: 0 }];
  assert.equal(await serve(requests, () => undefined, "r+", [-ENOMEM, 0]), [-ENOMEM]);
  const device = await serve(requests, () => undefined, "r+", [-ENOMEM, 0], true);
  assert.equal(device, [0]);
});

test("discard and write-zeroes read as zeroes and do not change the size", async () => {
  const requests = [
    { op: UblkOp.DISCARD, sector: 8, sectors: 8 },
    { op: UblkOp.WRITE_ZEROES, sector: 32, sectors: 8 },
    { op: UblkOp.WRITE_ZEROES, flags: UblkIoFlag.NOUNMAP, sector: 64, sectors: 64 },
  ];
  const results = await serve(requests, (content) => {
    const zero = (sector: number): boolean =>
      content.subarray(sector * 512, sector * 512 + 512).every((byte) => byte === 0);
    const expected = (sector: number): boolean =>
      (sector >= 8 && sector < 16) || (sector >= 32 && sector < 40) || sector >= 64;
    for (let sector = 0; sector < 128; sector++) assert.is(zero(sector), expected(sector));
    assert.is(content.length, 65_536);
  });
  assert.equal(results, [0, 0, 0]);
});

test("an unknown operation is -EOPNOTSUPP, and does nothing", async () => {
  const results = await serve([{ op: 4, sector: 0, sectors: 8 }], (content) => {
    assert.ok(content.every((byte) => byte === 97));
  });
  assert.equal(results, [-EOPNOTSUPP]);
});

test.run();
