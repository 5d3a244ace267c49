import {
  prepareCommand,
  prepareFallocate,
  prepareWriteFixed,
  Ring,
  SetupFlag,
} from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

/** The bytes of the SQE that `prepare` writes, at first filled with ones. */
function bytesOf(flags: number, prepare: (ring: Ring) => void): DataView {
  const ring = new Ring({ entries: 1, flags });
  ring.sqes32.fill(-1);
  prepare(ring);
  const bytes = new Uint8Array(ring.sqeWords * 4);
  bytes.set(new Uint8Array(ring.sqes32.buffer, 0, bytes.length));
  ring.close();
  return new DataView(bytes.buffer);
}

test("a write has its fields where the kernel reads them", () => {
  const sqe = bytesOf(0, (ring) => {
    prepareWriteFixed(ring, 5, 7, 0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 2, 0x6666, 0x77, 5);
  });
  assert.is(sqe.byteLength, 64);
  assert.is(sqe.getUint8(0), 5, "opcode");
  assert.is(sqe.getUint8(1), 5, "flags");
  assert.is(sqe.getUint16(2, true), 0, "ioprio");
  assert.is(sqe.getInt32(4, true), 5, "fd");
  assert.is(sqe.getBigUint64(8, true), 0x5555_0000_4444n, "off");
  assert.is(sqe.getBigUint64(16, true), 0x2222_0000_1111n, "addr");
  assert.is(sqe.getUint32(24, true), 0x3333, "len");
  assert.is(sqe.getUint32(28, true), 2, "rw_flags");
  assert.is(sqe.getBigUint64(32, true), 0x77_0000_6666n, "user_data");
  assert.is(sqe.getUint16(40, true), 7, "buf_index");
  for (let i = 42; i < 64; i++) assert.is(sqe.getUint8(i), 0, `byte ${i}`);
});

test("fallocate has its length as address and its mode as length", () => {
  const sqe = bytesOf(0, (ring) => prepareFallocate(ring, 4, 3, 1, 2, 5, 6, 7, 8, 0));
  assert.is(sqe.getBigUint64(8, true), 0x2_0000_0001n);
  assert.is(sqe.getBigUint64(16, true), 0x6_0000_0005n);
  assert.is(sqe.getUint32(24, true), 3);
});

for (const [flags, size] of [
  [0, 64],
  [SetupFlag.SQE128, 128],
] as const) {
  test(`a command of a ${size}-byte SQE begins at byte 48, all zero`, () => {
    const sqe = bytesOf(flags, (ring) => {
      const cmd = prepareCommand(ring, 3, 0xc0107521 | 0, 0x11, 0x22, 1);
      assert.is(cmd, 12);
    });
    assert.is(sqe.byteLength, size);
    assert.is(sqe.getUint8(0), 46, "opcode");
    assert.is(sqe.getUint8(1), 1, "flags");
    assert.is(sqe.getInt32(4, true), 3, "fd");
    assert.is(sqe.getUint32(8, true), 0xc0107521, "cmd_op");
    for (let i = 12; i < 32; i++) assert.is(sqe.getUint8(i), 0, `byte ${i}`);
    assert.is(sqe.getBigUint64(32, true), 0x22_0000_0011n, "user_data");
    for (let i = 40; i < size; i++) assert.is(sqe.getUint8(i), 0, `byte ${i}`);
  });
}

test("the second SQE of an SQE128 ring lies 128 bytes behind the first", () => {
  const ring = new Ring({ entries: 2, flags: SetupFlag.SQE128 });
  assert.is(prepareCommand(ring, 0, 0, 0, 0, 0), 12);
  assert.is(prepareCommand(ring, 0, 0, 0, 0, 0), 44);
  ring.close();
});

test.run();
