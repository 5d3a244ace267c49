import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Extent, NbdClient, NbdServer } from "@blksnap/nbd";
import { Dice } from "@blksnap/testing";
import { fileTarget } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  golden,
  MIB,
  RawClient,
  ramDisk,
  rejectsWith,
  request,
  withFolder,
  withServer,
} from "./support.js";

const EPERM = 1;
const EINVAL = 22;

async function collect(extents: AsyncIterable<Extent>): Promise<Extent[]> {
  const all: Extent[] = [];
  for await (const extent of extents) all.push(extent);
  return all;
}

test("written data is read back, in requests of all sizes and many at a time", async () => {
  await withServer([ramDisk(32 * MIB)], async (server) => {
    const client = await NbdClient.connect(server.uri("disk"));
    assert.is(client.sizeBytes, 32 * MIB);
    assert.is(client.readOnly, false);
    const model = Buffer.alloc(32 * MIB);
    const dice = new Dice(7);
    const sizes = [512, 4096, 65_536, 262_144, 262_656, 3 * MIB];
    // Each in its own part: overlapping writes have no defined order.
    const writes = Array.from({ length: 8 }, (_, index) => {
      const bytes = Buffer.alloc(sizes[index % sizes.length], dice.bytes(997));
      const offset = index * 4 * MIB + dice.below(100) * 512;
      bytes.copy(model, offset);
      return client.write(offset, bytes, { fua: index % 2 === 0 });
    });
    await Promise.all(writes);
    await client.flush();
    const reads = Array.from({ length: 200 }, async () => {
      const length = 512 * (1 + dice.below(dice.below(4) === 0 ? 8000 : 16));
      const offset = 512 * dice.below((32 * MIB - length) / 512);
      const found = await client.read(offset, length);
      assert.is(Buffer.compare(model.subarray(offset, offset + length), found), 0);
    });
    await Promise.all(reads);
    assert.is(Buffer.compare(model, await client.read(0, 32 * MIB)), 0);
    await client.close();
  });
});

test("zeroes are written, trims are taken", async () => {
  await withServer([ramDisk(64 * MIB)], async (server) => {
    const client = await NbdClient.connect(server.uri("disk"));
    await client.write(0, Buffer.alloc(20 * MIB, 1));
    await client.writeZeroes(MIB, 18 * MIB);
    await client.writeZeroes(512, 512, { keepsRoom: true, fua: true });
    await client.trim(19 * MIB, 512 * 1024);
    const found = Buffer.from(await client.read(0, 20 * MIB));
    const expected = Buffer.alloc(20 * MIB, 1)
      .fill(0, MIB, 19.5 * MIB)
      .fill(0, 512, 1024);
    assert.is(Buffer.compare(found, expected), 0);
    await client.close();
  });
});

test("a read-only export refuses all writes, and nothing changes", async () => {
  await withServer([ramDisk(MIB, { readOnly: true })], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.begin("disk", true);
    for (const [type, length] of [
      [1, 4096],
      [4, 4096],
      [6, 4096],
    ] as const) {
      raw.send(request({ type, length }), Buffer.alloc(type === 1 ? length : 0, 1));
      const error = await raw.reader.read(26);
      assert.is(error.readUInt16BE(6), 0x8001);
      assert.is(error.readUInt32BE(20), EPERM);
    }
    raw.socket.destroy();
    const client = await NbdClient.connect(server.uri("disk"));
    assert.ok(client.readOnly);
    await rejectsWith(client.write(0, Buffer.alloc(512)), "REQUEST_FAILED", EPERM);
    await rejectsWith(client.writeZeroes(0, 512), "NOT_NEGOTIATED");
    assert.equal(Buffer.from(await client.read(0, 4096)), Buffer.alloc(4096));
    await client.close();
  });
});

test("replies equal those of qemu-nbd byte for byte", async () => {
  const context = (name: string, flags: number[]) => ({
    name,
    extents: flags.map((one) => ({ lengthBytes: MIB, flags: one })),
  });
  const contexts = [context("base:allocation", [0, 3]), context("qemu:dirty-bitmap:b0", [1, 0])];
  await withServer([ramDisk(2 * MIB, { contexts })], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.reader.read(18);
    raw.send(golden("00000003 49484156454f5054 00000008 00000000"));
    await raw.reader.read(20);
    raw.send(
      golden(
        `49484156454f5054 0000000a 00000037 00000004 "disk" 00000002 0000000f "base:allocation"
         00000014 "qemu:dirty-bitmap:b0"`,
      ),
    );
    await raw.reader.read(20 + 19 + 20 + 24 + 20);
    raw.send(golden('49484156454f5054 00000007 0000000a 00000004 "disk" 0000'));
    await raw.reader.read(20 + 14 + 20 + 12 + 20);
    raw.send(golden("25609513 0000 0007 0000000000000001 0000000000000000 00200000"));
    assert.equal(
      await raw.reader.read(36 + 36 + 8),
      golden(
        `668e33ef 0000 0005 0000000000000001 00000014 00000000 00100000 00000000 00100000 00000003
         668e33ef 0001 0005 0000000000000001 00000014 00000001 00100000 00000001 00100000 00000000`,
      ),
    );
    raw.send(golden("25609513 0000 0000 0000000000000002 0000000000100000 00000200"));
    assert.equal(
      await raw.reader.read(28 + 512),
      Buffer.concat([
        golden("668e33ef 0001 0001 0000000000000002 00000208 0000000000100000"),
        Buffer.alloc(512),
      ]),
    );
    raw.send(golden("25609513 0000 0003 0000000000000003 0000000000000000 00000000"));
    assert.equal(await raw.reader.read(20), golden("668e33ef 0001 0000 0000000000000003 00000000"));
    raw.send(golden("25609513 0000 0002 0000000000000003 0000000000000000 00000000"));
    await raw.untilClosed();
  });
});

test("block status is reported for each context, in several replies if it is long", async () => {
  const changed = Array.from({ length: 65_536 }, (_, index) => ({
    lengthBytes: 512,
    flags: index % 2,
  }));
  const contexts = [{ name: "qemu:dirty-bitmap:since-1", extents: changed }];
  await withServer([ramDisk(64 * MIB, { contexts })], async (server) => {
    const uri = server.uri("disk");
    const names = ["base:allocation", "qemu:dirty-bitmap:since-1"];
    assert.equal(await NbdClient.listContexts(uri), names);
    const client = await NbdClient.connect(uri, { contexts: [...names, "x:none"] });
    assert.equal(client.contexts, names);
    const found = await collect(client.extents("qemu:dirty-bitmap:since-1"));
    // The last run is not changed, nor is anything after it.
    assert.is(found.length, 65_537);
    assert.equal(found[1], { offsetBytes: 512, lengthBytes: 512, flags: 1 });
    assert.equal(found.at(-1), { offsetBytes: 32 * MIB, lengthBytes: 32 * MIB, flags: 0 });
    const some = await collect(client.extents("qemu:dirty-bitmap:since-1", 1024, 2048));
    assert.equal(
      some.map(({ offsetBytes }) => offsetBytes),
      [1024, 1536],
    );
    const all = [{ offsetBytes: 0, lengthBytes: 64 * MIB, flags: 0 }];
    assert.equal(await collect(client.extents("base:allocation")), all);
    await client.close();
    const without = await NbdClient.connect(uri);
    await rejectsWith(without.blockStatus(0, 512), "NOT_NEGOTIATED");
    await without.close();
  });
});

test("several exports are listed; the first is the default one", async () => {
  const exports = [ramDisk(MIB, { description: "one" }), ramDisk(2 * MIB, { name: "ä/2" })];
  await withServer(exports, async (server) => {
    assert.equal(await NbdClient.list(server.socketPath), [
      { name: "disk", description: "one" },
      { name: "ä/2", description: "" },
      { name: "quiet", description: "" },
    ]);
    const sizes = ["", "disk", "ä/2"].map(async (name) => {
      const client = await NbdClient.connect(server.uri(name));
      await client.close();
      return client.sizeBytes;
    });
    assert.equal(await Promise.all(sizes), [MIB, MIB, 2 * MIB]);
    await rejectsWith(NbdClient.connect(server.uri("none")), "EXPORT_UNKNOWN");
  });
});

test("a file is exported unchanged, and its errors are passed on", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "image");
    const bytes = new Dice(1).bytes(4096);
    writeFileSync(path, Buffer.concat(Array.from({ length: 256 }, () => bytes)));
    const file = { name: "disk", target: fileTarget({ path, readOnly: true }) };
    await withServer([file], async (server) => {
      const client = await NbdClient.connect(server.uri("disk"));
      assert.equal(Buffer.from(await client.read(8192, 4096)), bytes);
      // The file is shorter from now on.
      writeFileSync(path, "");
      await rejectsWith(client.read(8192, 4096), "REQUEST_FAILED", 5);
      await client.close();
    });
    await rejectsWith(
      withServer([file, file], () => Promise.resolve()),
      "SERVER_FAILED",
    ).catch(() => undefined);
  });
});

test("a server that is stopped ends its connections and removes its socket", async () => {
  await withFolder(async (folder) => {
    const socketPath = join(folder, "socket");
    const server = await NbdServer.start({ socketPath, exports: [ramDisk(MIB)] });
    const client = await NbdClient.connect(server.uri("disk"));
    await server.stop();
    await rejectsWith(client.read(0, 512), "CONNECTION_LOST");
    await rejectsWith(NbdClient.connect(server.uri("disk")), "CONNECT_FAILED");
  });
});

test("misuse of the client fails before anything is sent", async () => {
  await withServer([ramDisk(MIB)], async (server) => {
    const client = await NbdClient.connect(server.uri("disk"), { requestsMax: 1 });
    await rejectsWith(client.read(MIB, 512), "OUT_OF_RANGE");
    await rejectsWith(client.read(-512, 512), "OUT_OF_RANGE");
    await rejectsWith(client.read(0, 33 * MIB), "OUT_OF_RANGE");
    await rejectsWith(client.read(1, 512), "REQUEST_FAILED", EINVAL);
    assert.is((await client.read(0, 0)).length, 0);
    // More than fit in flight: they wait for each other, and closing waits for them.
    const reads = Array.from({ length: 20 }, () => client.read(0, 4096));
    const closed = client.close();
    assert.is((await Promise.all(reads)).length, 20);
    await closed;
    await rejectsWith(client.read(0, 512), "CONNECTION_LOST");
    await rejectsWith(
      Promise.resolve().then(() => NbdClient.connect("http://x")),
      "BAD_URI",
    );
  });
});

test.run();
