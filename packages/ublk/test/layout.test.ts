import { test } from "uvu";
import * as assert from "uvu/assert";
import { decodeDeviceInfo, encodeDeviceInfo, encodeParams } from "../dist/layout.js";
import { isError, PARAMS } from "./support.js";

const EINVAL = 22;
const MAX_IO = 512 * 1024;

/** Bytes as hex, in groups of four. */
function hex(bytes: Uint8Array, from: number, to: number): string {
  const text = Buffer.from(bytes.subarray(from, to)).toString("hex");
  return (text.match(/.{8}/g) ?? []).join(" ");
}

test("the device info that ADD_DEV takes", () => {
  const bytes = encodeDeviceInfo({
    id: -1,
    queues: 2,
    queueDepth: 128,
    maxIoBytes: MAX_IO,
    features: 0x18,
    serverFlags: 0x12345678,
    serverFlagsHigh: 0xfedcba98,
  });
  assert.is(bytes.length, 64);
  assert.is(hex(bytes, 0, 16), "02008000 00000000 00000800 ffffffff");
  assert.is(hex(bytes, 16, 40), "00000000 00000000 18000000 00000000 78563412 98badcfe");
  assert.ok(bytes.subarray(40).every((byte) => byte === 0));
});

test("the device info that the kernel gives", () => {
  const text =
    "0100800001000000" + "0000080003000000" + "b20000000000000" + "0" + "6200000000000000";
  const bytes = new Uint8Array(80);
  bytes.set(Buffer.from(text, "hex"), 8);
  new DataView(bytes.buffer).setUint32(8 + 32, 0x424c4b53, true);
  new DataView(bytes.buffer).setUint32(8 + 36, 0xfedcba98, true);
  new DataView(bytes.buffer).setUint32(8 + 40, 1000, true);
  new DataView(bytes.buffer).setUint32(8 + 44, 1001, true);
  assert.equal(decodeDeviceInfo(bytes.subarray(8, 72)), {
    id: 3,
    queues: 1,
    queueDepth: 128,
    state: 1,
    maxIoBytes: MAX_IO,
    serverPid: 178,
    features: 0x62,
    serverFlags: 0x424c4b53,
    serverFlagsHigh: 0xfedcba98,
    ownerUid: 1000,
    ownerGid: 1001,
  });
});

test("the parameters of a device with everything", () => {
  const bytes = encodeParams({ ...PARAMS, readOnly: true, rotational: true, fua: true }, MAX_IO);
  assert.is(bytes.length, 152);
  assert.is(hex(bytes, 0, 8), "98000000 03000000");
  assert.is(hex(bytes, 8, 24), "0f000000 090c100c 00040000 00000000");
  assert.is(hex(bytes, 24, 40), "00002000 00000000 00000000 00000000");
  assert.is(hex(bytes, 40, 60), "00000000 00100000 00800000 00400000 01000000");
  assert.ok(bytes.subarray(60).every((byte) => byte === 0));
});

test("without discard and write-zeroes there is no discard part", () => {
  const bytes = encodeParams({ ...PARAMS, discardMaxBytes: 0, writeZeroesMaxBytes: 0 }, MAX_IO);
  assert.is(hex(bytes, 4, 8), "01000000");
  assert.ok(bytes.subarray(40).every((byte) => byte === 0));
});

test("write-zeroes alone has no discard segment", () => {
  const bytes = encodeParams({ ...PARAMS, discardMaxBytes: 0 }, MAX_IO);
  assert.is(hex(bytes, 4, 8), "03000000");
  assert.is(hex(bytes, 40, 60), "00000000 00100000 00000000 00400000 00000000");
});

test("users of a device with zero copy align their memory as the file wants it, others as they like", () => {
  const params = { ...PARAMS, pageAlignmentBytes: 512 };
  const bytes = encodeParams(params, MAX_IO, true);
  assert.is(hex(bytes, 4, 8), "13000000");
  assert.is(hex(bytes, 104, 116), "00000000 ff010000 00000000");
  assert.equal(encodeParams(params, MAX_IO), encodeParams(PARAMS, MAX_IO));
});

test("a capacity beyond 2 TiB is exact", () => {
  const bytes = encodeParams({ ...PARAMS, capacityBytes: 2 ** 52 }, MAX_IO);
  assert.is(hex(bytes, 24, 32), "00000000 00080000");
});

const BAD_PARAMS = [
  { capacityBytes: 0 },
  { capacityBytes: -512 },
  { capacityBytes: 1000 },
  { capacityBytes: Number.NaN },
  { capacityBytes: 2 ** 60 },
  { capacityBytes: 512, logicalBlockBytes: 4096 },
  { logicalBlockBytes: 256 },
  { logicalBlockBytes: 520 },
  { logicalBlockBytes: 8192 },
  { physicalBlockBytes: 0 },
  { physicalBlockBytes: 512, logicalBlockBytes: 4096 },
  { ioMinBytes: 3000 },
  { ioOptBytes: 1 },
  { discardMaxBytes: -512 },
  { discardMaxBytes: 100 },
  { writeZeroesMaxBytes: 2 ** 41 },
];

for (const change of BAD_PARAMS) {
  test(`parameters with ${JSON.stringify(change)} are refused`, () => {
    assert.throws(
      () => encodeParams({ ...PARAMS, ...change }, MAX_IO),
      isError("CONTROL_FAILED", EINVAL),
    );
  });
}

const GOOD_DEVICE = {
  id: 0,
  queues: 1,
  queueDepth: 4096,
  maxIoBytes: 32 << 20,
  features: 0,
  serverFlags: 0,
  serverFlagsHigh: 0,
};

for (const change of [
  { queueDepth: 0 },
  { queueDepth: 4097 },
  { queueDepth: 1.5 },
  { queues: 0 },
  { maxIoBytes: 0 },
  { maxIoBytes: 5000 },
  { maxIoBytes: (32 << 20) + 4096 },
  { id: 0.5 },
  { id: 2 ** 32 },
]) {
  test(`a device with ${JSON.stringify(change)} is refused`, () => {
    encodeDeviceInfo(GOOD_DEVICE);
    assert.throws(
      () => encodeDeviceInfo({ ...GOOD_DEVICE, ...change }),
      isError("CONTROL_FAILED", EINVAL),
    );
  });
}

test.run();
