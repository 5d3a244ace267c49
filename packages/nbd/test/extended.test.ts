/** Extended headers: requests and replies with 64-bit lengths, and payloads by flag. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NbdClient, type NbdExport } from "@blksnap/nbd";
import { u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { oddTarget } from "./odd-target.js";
import {
  extendedRequest,
  golden,
  MIB,
  RawClient,
  ramDisk,
  withFolder,
  withServer,
} from "./support.js";

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;
const EOVERFLOW = 75;
const GIB = 2 ** 30;
const SIZE = 6 * GIB;
const PAYLOAD = 0x20;
const NAMES = ["base:allocation", "qemu:dirty-bitmap:b0"];

/** Of 6 GiB, of which nothing is stored. */
function hugeDisk(more: { closedPath?: string; rangeMaxBytes?: number } = {}): NbdExport {
  return {
    name: "disk",
    readOnly: false,
    target: oddTarget({ kind: "plain", capacityBytes: SIZE, ...more }),
    contexts: [
      {
        name: "base:allocation",
        extents: [
          { lengthBytes: 5 * GIB, flags: 0 },
          { lengthBytes: GIB, flags: 3 },
        ],
      },
      { name: "qemu:dirty-bitmap:b0", extents: [{ lengthBytes: SIZE, flags: 1 }] },
    ],
  };
}

test("requests and replies are encoded as the protocol demands", async () => {
  await withServer([hugeDisk()], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.beginExtended("disk", NAMES);
    // Block status of 6 GiB.
    raw.send(golden("21e41c71 0000 0007 0000000000000001 0000000000000000 0000000180000000"));
    const allocation = `0000000000000001 0000000000000000 0000000000000028 00000000 00000002
       0000000140000000 0000000000000000 0000000040000000 0000000000000003`;
    const dirty = "0000000000000018 00000001 00000001 0000000180000000 0000000000000001";
    assert.equal(
      await raw.reader.read(72 + 56),
      golden(
        `6e8a278c 0000 0006 ${allocation}
         6e8a278c 0001 0006 0000000000000001 0000000000000000 ${dirty}`,
      ),
    );
    // Only for the second context.
    raw.send(
      golden(
        `21e41c71 0020 0007 0000000000000002 0000000000000000 000000000000000c
         0000000180000000 00000001`,
      ),
    );
    assert.equal(
      await raw.reader.read(56),
      golden(`6e8a278c 0001 0006 0000000000000002 0000000000000000 ${dirty}`),
    );
    // A read of 512 bytes at 4 GiB, a flush.
    raw.send(golden("21e41c71 0000 0000 0000000000000003 0000000100000000 0000000000000200"));
    assert.equal(
      (await raw.reader.read(40 + 512)).subarray(0, 40),
      golden(
        "6e8a278c 0001 0001 0000000000000003 0000000100000000 0000000000000208 0000000100000000",
      ),
    );
    raw.send(golden("21e41c71 0000 0003 0000000000000004 0000000000000000 0000000000000000"));
    assert.equal(
      await raw.reader.read(32),
      golden("6e8a278c 0001 0000 0000000000000004 0000000000000000 0000000000000000"),
    );
    // A read past the end: the reply names its offset.
    raw.send(golden("21e41c71 0000 0000 0000000000000005 fffffffffffffe00 0000000000000200"));
    assert.equal(
      await raw.reader.read(38),
      golden(
        `6e8a278c 0001 8001 0000000000000005 fffffffffffffe00 0000000000000006
         00000016 0000`,
      ),
    );
    raw.send(golden("21e41c71 0000 0002 0000000000000006 0000000000000000 0000000000000000"));
    await raw.untilClosed();
  });
});

test("each piece of a read names the request's offset", async () => {
  await withServer([ramDisk(2 * MIB)], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.beginExtended("disk");
    const bytes = Buffer.alloc(MIB, "piece by piece");
    raw.send(
      extendedRequest({ type: 1, flags: PAYLOAD, offset: 4096n }, BigInt(MIB), bytes),
      extendedRequest({ type: 0, offset: 4096n }, BigInt(MIB)),
    );
    assert.is((await raw.extendedReply()).error, 0);
    const found = Buffer.alloc(MIB);
    for (let have = 0; have < MIB; ) {
      const header = await raw.reader.read(40);
      assert.is(header.readUInt16BE(6), 1);
      assert.is(header.readBigUInt64BE(16), 4096n);
      const length = Number(header.readBigUInt64BE(24)) - 8;
      const at = Number(header.readBigUInt64BE(32)) - 4096;
      found.set(await raw.reader.read(length), at);
      have += length;
      assert.is(header.readUInt16BE(4), have === MIB ? 1 : 0);
    }
    assert.is(Buffer.compare(found, bytes), 0);
    raw.socket.destroy();
  });
});

type Case = [what: string, error: number, bytes: Buffer];
const past = BigInt(SIZE);
const CASES: Case[] = [
  ["a read of more than 4 GiB", EINVAL, extendedRequest({ type: 0 }, 2n ** 32n + 512n)],
  ["a read of 33 MiB", EINVAL, extendedRequest({ type: 0 }, BigInt(33 * MIB))],
  ["too much in one piece", EOVERFLOW, extendedRequest({ type: 0, flags: 4 }, BigInt(MIB))],
  ["a trim past the end", EINVAL, extendedRequest({ type: 4 }, past + 512n)],
  ["a trim of all numbers", EINVAL, extendedRequest({ type: 4, offset: 512n }, 2n ** 64n - 512n)],
  ["zeroes past the end", ENOSPC, extendedRequest({ type: 6 }, 2n ** 63n)],
  ["status past the end", EINVAL, extendedRequest({ type: 7 }, past + 512n)],
  ["an odd length beyond 4 GiB", EINVAL, extendedRequest({ type: 6 }, 2n ** 32n + 1n)],
  ["a flush of 4 GiB", EINVAL, extendedRequest({ type: 3 }, 2n ** 32n)],
  ["command 256", EINVAL, extendedRequest({ type: 256 }, 512n)],
  ["an unknown flag", EINVAL, extendedRequest({ type: 0, flags: 0x40 }, 512n)],
  ["a write that announces none", EINVAL, extendedRequest({ type: 1 }, 512n)],
  ["a write of nothing", EINVAL, extendedRequest({ type: 1, flags: PAYLOAD }, 0n)],
  [
    "a write past the end",
    ENOSPC,
    extendedRequest({ type: 1, flags: PAYLOAD, offset: past }, 512n, Buffer.alloc(512)),
  ],
  ...[0, 3, 4, 6, 99, 263].map(
    (type): Case => [
      `a payload of command ${type}`,
      EINVAL,
      extendedRequest({ type, flags: PAYLOAD }, 70_000n, Buffer.alloc(70_000, 0x21)),
    ],
  ),
  ...(
    [
      ["of no context", u32(0, 512)],
      ["without length", u32(0)],
      ["cut off", u32(0, 512, 0).subarray(0, 11)],
      ["of a context that is not there", u32(0, 512, 2)],
      ["of one context twice", u32(0, 512, 1, 1)],
      ["of more than there can be", u32(0, 512, ...Array(17).keys())],
      ["past the end", u32(2, 0, 0)],
    ] as const
  ).map(
    ([what, payload]): Case => [
      `status ${what}`,
      EINVAL,
      extendedRequest({ type: 7, flags: PAYLOAD }, BigInt(payload.length), payload),
    ],
  ),
];

test("forbidden requests get their errors after their payload, and the next one is served", async () => {
  await withServer([hugeDisk({ rangeMaxBytes: GIB })], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.beginExtended("disk", NAMES);
    for (const [what, error, bytes] of CASES) {
      raw.send(bytes);
      assert.is((await raw.extendedReply()).error, error, what);
    }
    raw.send(...CASES.map(([, , bytes]) => bytes));
    for (const [what, error] of CASES) assert.is((await raw.extendedReply()).error, error, what);
    raw.socket.destroy();
  });
});

test("the contexts of block status may arrive later than its header", async () => {
  await withServer([hugeDisk()], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.beginExtended("disk", NAMES);
    const filtered = extendedRequest({ type: 7, flags: PAYLOAD }, 12n, u32(0, 512, 1));
    for (const cut of [31, 32, 33, 43]) {
      // The reply comes after all received bytes were processed.
      raw.send(extendedRequest({ type: 3 }, 0n), filtered.subarray(0, cut));
      assert.is((await raw.extendedReply()).error, 0);
      raw.send(filtered.subarray(cut));
      assert.equal((await raw.extendedReply()).payload, u32(1, 1, 0, 512, 0, 1));
    }
    raw.socket.destroy();
  });
});

test("a refused write is answered after its payload", async () => {
  await withServer([ramDisk(MIB, { readOnly: true })], async (server) => {
    const raw = new RawClient(server.socketPath);
    await raw.beginExtended("disk");
    raw.send(
      extendedRequest({ type: 1, flags: PAYLOAD }, 512n, Buffer.alloc(512)),
      extendedRequest({ type: 6 }, 2n ** 40n),
      // No context is selected.
      extendedRequest({ type: 7 }, 512n),
      extendedRequest({ type: 7, flags: PAYLOAD }, 12n, u32(0, 512, 0)),
    );
    for (const error of [EPERM, EPERM, EINVAL, EINVAL]) {
      assert.is((await raw.extendedReply()).error, error);
    }
    raw.socket.destroy();
  });
});

test("bytes that are no request with extended headers end the connection", async () => {
  await withServer([ramDisk(MIB)], async (server) => {
    for (const bytes of [
      golden("25609513 0000 0000 0000000000000001 0000000000000000 00000200 00000000"),
      extendedRequest({ type: 1, flags: PAYLOAD }, BigInt(33 * MIB)),
      extendedRequest({ type: 0, flags: PAYLOAD }, 2n ** 63n),
      extendedRequest({ type: 7, flags: PAYLOAD }, BigInt(33 * MIB)),
    ]) {
      const raw = new RawClient(server.socketPath);
      await raw.beginExtended("disk", ["base:allocation"]);
      raw.send(bytes);
      await raw.untilClosed();
    }
  });
});

test("trims and zeroes of more than 4 GiB reach the target whole", async () => {
  await withFolder(async (folder) => {
    const closedPath = join(folder, "closed");
    // 4 GiB is not a multiple of this maximum.
    await withServer([hugeDisk({ closedPath, rangeMaxBytes: 700 * MIB })], async (server) => {
      const raw = new RawClient(server.socketPath);
      await raw.beginExtended("disk");
      raw.send(
        extendedRequest({ type: 4 }, BigInt(SIZE)),
        extendedRequest({ type: 6, offset: 512n, flags: 1 }, BigInt(5 * GIB)),
        // The server does nothing for it.
        extendedRequest({ type: 5 }, BigInt(SIZE)),
      );
      for (let left = 3; left > 0; left--) assert.is((await raw.extendedReply()).error, 0);
      raw.socket.destroy();
    });
    assert.is(readFileSync(closedPath, "utf8"), `${SIZE} ${5 * GIB}`);
  });
});

test("the client uses extended headers if the server has them, and works without", async () => {
  await withServer([hugeDisk()], async (server) => {
    for (const extendedHeaders of [true, false]) {
      const options = { contexts: NAMES, extendedHeaders };
      const client = await NbdClient.connect(server.uri("disk"), options);
      assert.is(client.hasExtendedHeaders, extendedHeaders);
      const status = await client.blockStatus(0, SIZE);
      assert.equal([...status.keys()], NAMES);
      // In one request, or as much as one request can cover.
      const [first] = status.get(NAMES[0] as string)!;
      assert.is(first?.lengthBytes, extendedHeaders ? 5 * GIB : GIB);
      for (const [index, name] of NAMES.entries()) {
        const found = [];
        for await (const { lengthBytes, flags } of client.extents(name)) {
          found.push([lengthBytes, flags]);
        }
        const expected = [
          [
            [5 * GIB, 0],
            [GIB, 3],
          ],
          [[SIZE, 1]],
        ];
        assert.equal(found, expected[index]);
      }
      await client.close();
    }
  });
  await withServer([ramDisk(4 * MIB)], async (server) => {
    const client = await NbdClient.connect(server.uri("disk"));
    const bytes = Buffer.alloc(3 * MIB, "extended");
    await client.write(512, bytes, { fua: true });
    await client.writeZeroes(4096, MIB);
    await client.trim(0, 512);
    await client.flush();
    bytes.fill(0, 4096 - 512, 4096 - 512 + MIB);
    assert.is(Buffer.compare(bytes, await client.read(512, 3 * MIB)), 0);
    await client.close();
  });
});

test.run();
