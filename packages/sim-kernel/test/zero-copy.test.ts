/** The real code of @blksnap/ublk with zero copy, on a simulated driver that registers pages of requests. */
import { closeSync } from "node:fs";
import { Killed, type MachineOptions, type SimDisk, SimMachine } from "@blksnap/sim-kernel";
import { openBackingFile, UblkFeature, UblkState } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addDisk, DISK_BYTES, MAX_IO_BYTES, Server } from "./server.js";

/** Linux 7.0. */
const FEATURES = 0xffff;
const WRITE_BYTES = 16_384;
/** Offsets in `ublk_params`: the types present, UBLK_PARAM_TYPE_DMA_ALIGN, and its mask. */
const [TYPES_AT, DMA_ALIGN, DMA_MASK_AT] = [4, 0x10, 108];

interface World {
  readonly machine: SimMachine;
  readonly disk: SimDisk;
  readonly server: Server;
}

async function withServer(
  code: (world: World) => Promise<void>,
  options: Partial<MachineOptions> = {},
): Promise<void> {
  const machine = new SimMachine({ seed: 1, ublkFeatures: FEATURES, ...options });
  try {
    const disk = addDisk(machine);
    const server = new Server(machine);
    await machine.run(machine.start(() => server.start({}, true)));
    await code({ machine, disk, server });
    assert.equal(machine.violations, []);
    assert.equal(server.errors, []);
  } finally {
    await machine.close();
  }
}

function pattern(lengthBytes: number, first: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => first + (i >> 9));
}

/** Writes and reads at the same time; returns whether all data is right. */
async function useDevice({ machine, disk, server }: World): Promise<void> {
  const user = machine.user("/dev/ublkb0");
  const bytes = pattern(3 * MAX_IO_BYTES, 1);
  await machine.run(user.write(4096, bytes));
  const others = [0, 1, 2, 3].map((i) => user.write(2 ** 19 + i * WRITE_BYTES, pattern(512, i)));
  const read = user.read(4096, bytes.length);
  await machine.run(Promise.all(others));
  assert.equal(await machine.run(read), bytes);
  assert.equal(disk.bytes.slice(4096, 4096 + bytes.length), bytes);
  for (let i = 0; i < 4; i++) assert.is(disk.bytes[2 ** 19 + i * WRITE_BYTES + 511], i);
  await machine.run(user.flush());
  await machine.run(user.discard(8192, 4096));
  assert.equal(disk.bytes.slice(8192, 12_288), new Uint8Array(4096));
  assert.is(user.device.capacityBytes, DISK_BYTES);
  user.close();
  await machine.run(server.stop());
}

test("a device has zero copy if the kernel supports it and it is requested", async () => {
  await withServer(async (world) => {
    assert.ok(world.server.device.hasZeroCopy);
    await useDevice(world);
  });
  for (const ublkFeatures of [0x3ff, FEATURES & ~UblkFeature.BATCH_IO]) {
    await withServer(
      async (world) => {
        assert.not.ok(world.server.device.hasZeroCopy);
        await useDevice(world);
      },
      { ublkFeatures },
    );
  }
});

test("users of a device with zero copy must align memory as the disk does", async () => {
  for (const ublkFeatures of [FEATURES, 0x3ff]) {
    await withServer(
      async ({ machine, server }) => {
        const params = machine.ublk.devices.get(0)?.params as DataView;
        const isAsked = (params.getUint32(TYPES_AT, true) & DMA_ALIGN) !== 0;
        assert.is(isAsked, server.device.hasZeroCopy);
        assert.is(params.getUint32(DMA_MASK_AT, true), isAsked ? 3 : 0);
      },
      { ublkFeatures },
    );
  }
});

test("a disk that needs stable pages gets copies", async () => {
  await withServer(async ({ machine }) => {
    machine.addDisk("sdb", { sizeBytes: DISK_BYTES });
    machine.addDisk("sdc", { sizeBytes: DISK_BYTES, needsStablePages: true });
    const alignmentOf = (path: string) => {
      const { fd, params } = openBackingFile(path);
      closeSync(fd);
      return params.pageAlignmentBytes;
    };
    assert.is(alignmentOf("/dev/sdb"), 4);
    assert.is(alignmentOf("/dev/sdc"), undefined);
  });
});

test("requests whose pages are refused, by the ring or by the target, are copied", async () => {
  for (const pagesRefusedOneIn of [1, 2, 3]) {
    for (let seed = 1; seed <= 10; seed++) await withServer(useDevice, { pagesRefusedOneIn, seed });
  }
});

test("an error or a short transfer of the disk becomes the request's, with pages and with copies", async () => {
  for (const pagesRefusedOneIn of [0, 1]) {
    await withServer(
      async ({ machine, disk }) => {
        const user = machine.user("/dev/ublkb0");
        const code = (io: Promise<unknown>) =>
          machine.run(
            io.then(
              () => "done",
              (error) => error.code,
            ),
          );
        disk.medium.fault = ({ offsetBytes }) =>
          offsetBytes === 0 ? { errno: 5 } : offsetBytes === 4096 ? { shortBytes: 512 } : undefined;
        assert.is(await code(user.read(0, 4096)), "EIO");
        assert.is(await code(user.write(0, pattern(4096, 1))), "EIO");
        assert.is(await code(user.read(4096, 4096)), "EIO");
        assert.is(await code(user.write(4096, pattern(4096, 1))), "EIO");
        assert.is(await code(user.write(8192, pattern(4096, 1))), "done");
      },
      { pagesRefusedOneIn },
    );
  }
});

test("users of a killed server wait, and the next one serves them", async () => {
  for (let seed = 1; seed <= 24; seed++) {
    await withServer(
      async ({ machine, disk }) => {
        const user = machine.user("/dev/ublkb0");
        const bytes = pattern(WRITE_BYTES, seed);
        const writes = [0, 1, 2, 3].map((i) => user.write(i * WRITE_BYTES, bytes));
        // At any time from before the first request to after the last.
        machine.scheduler.after(seed * 15, () => machine.kill());
        await machine.run(Promise.all(writes)).catch((error) => assert.instance(error, Killed));
        machine.kill();
        await machine.settle();
        await machine.run(() => machine.ublk.devices.get(0)?.state === UblkState.QUIESCED);
        const next = new Server(machine);
        await machine.run(machine.start(() => next.recover(0)));
        assert.ok(next.device.hasZeroCopy);
        await machine.run(Promise.all(writes));
        for (let i = 0; i < 4; i++)
          assert.equal(disk.bytes.slice(i * WRITE_BYTES, (i + 1) * WRITE_BYTES), bytes);
        user.close();
        await machine.run(next.stop());
        assert.equal(next.errors, []);
      },
      { seed, pagesRefusedOneIn: seed % 3 },
    );
  }
});

test("the kernel does not return a request whose pages are in use", async () => {
  await withServer(async ({ machine, disk }) => {
    const user = machine.user("/dev/ublkb0");
    disk.medium.fault = () => ({ hangs: true });
    const write = user.write(0, pattern(4096, 9));
    await machine.sleep(10);
    machine.kill();
    await machine.settle();
    disk.medium.fault = undefined;
    await machine.sleep(10_000);
    assert.is(machine.ublk.devices.get(0)?.state, UblkState.LIVE);
    disk.medium.release();
    const next = new Server(machine);
    await machine.run(machine.start(() => next.recover(0)));
    await machine.run(write);
  });
});

test.run();
