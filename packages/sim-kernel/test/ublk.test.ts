/** The real code of @blksnap/ublk, with a simulated driver, disk and users. */
import { existsSync, openSync } from "node:fs";
import { Killed, SimMachine } from "@blksnap/sim-kernel";
import { listDeviceIds, type UblkError, UblkState } from "@blksnap/ublk";
import { high32, low32, MappedMemory, prepareRead, Ring } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addDisk, DEPTH, DISK_BYTES, MAX_IO_BYTES, OWNER, Server } from "./server.js";

async function withMachine(
  code: (machine: SimMachine, trace: readonly string[]) => Promise<void>,
  seed = 1,
): Promise<readonly string[]> {
  const trace: string[] = [];
  const machine = new SimMachine({ seed, onTrace: (line) => trace.push(line) });
  try {
    await code(machine, trace);
    assert.equal(machine.violations, []);
  } finally {
    await machine.close();
  }
  return trace;
}

async function serve(machine: SimMachine): Promise<Server> {
  const server = new Server(machine);
  await machine.run(machine.start(() => server.start()));
  return server;
}

function pattern(lengthBytes: number, first: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => first + (i >> 9));
}

test("users read and write through the server, in requests of the size that it accepts", async () => {
  await withMachine(async (machine) => {
    const disk = addDisk(machine);
    const server = await serve(machine);
    const user = machine.user("/dev/ublkb0");
    assert.is(user.device.capacityBytes, DISK_BYTES);
    const bytes = pattern(3 * MAX_IO_BYTES, 1);
    await machine.run(user.write(4096, bytes));
    assert.equal(disk.bytes.slice(4096, 4096 + bytes.length), bytes);
    assert.equal(await machine.run(user.read(4096, bytes.length)), bytes);
    assert.ok(disk.content.dirtyPages > 0, "the disk's cache has them");
    await machine.run(user.flush());
    assert.is(disk.content.dirtyPages, 0);
    await machine.run(user.discard(8192, 4096));
    await machine.run(user.zero(16_384, 4096, true));
    assert.equal(disk.bytes.slice(8192, 12_288), new Uint8Array(4096));
    assert.equal(disk.bytes.slice(16_384, 20_480), new Uint8Array(4096));
    assert.is(disk.medium.counts.discard, 1);
    user.close();
    await machine.run(server.stop());
    assert.equal(server.errors, []);
    assert.equal(machine.ublk.devices.size, 0);
  });
});

test("zeroes are written if the device does not offer zeroing", async () => {
  await withMachine(async (machine) => {
    const disk = addDisk(machine);
    const server = new Server(machine);
    await machine.run(machine.start(() => server.start({ writeZeroesMaxBytes: 0 })));
    const user = machine.user("/dev/ublkb0");
    await machine.run(user.write(0, pattern(3 * MAX_IO_BYTES, 1)));
    const { write } = disk.medium.counts;
    await machine.run(user.zero(0, 2 * MAX_IO_BYTES));
    assert.equal(disk.bytes.slice(0, 2 * MAX_IO_BYTES), new Uint8Array(2 * MAX_IO_BYTES));
    assert.is(disk.bytes[2 * MAX_IO_BYTES], pattern(3 * MAX_IO_BYTES, 1)[2 * MAX_IO_BYTES]);
    assert.is(disk.medium.counts.write, write + 2);
    assert.is(disk.medium.counts.zero + disk.medium.counts.punch, 0);
  });
});

test("a durable write is followed by a flush if the device has no FUA", async () => {
  for (const fua of [false, true]) {
    await withMachine(async (machine) => {
      const disk = addDisk(machine);
      const server = new Server(machine);
      await machine.run(machine.start(() => server.start({ fua })));
      const user = machine.user("/dev/ublkb0");
      await machine.run(user.write(0, pattern(4096, 1), true));
      assert.is(disk.medium.counts.sync, fua ? 0 : 1);
      assert.is(disk.content.dirtyPages, 0);
    });
  }
});

test("errors and hangs of a disk reach only its users", async () => {
  await withMachine(async (machine) => {
    const disk = addDisk(machine);
    await serve(machine);
    const user = machine.user("/dev/ublkb0");
    disk.medium.fault = ({ offsetBytes }) => (offsetBytes === 0 ? { errno: 5 } : undefined);
    const code = await machine.run(user.read(0, 4096).catch((error) => error.code));
    assert.is(code, "EIO");
    disk.medium.fault = ({ offsetBytes }) => (offsetBytes === 0 ? { hangs: true } : undefined);
    const hanging = user.read(0, 4096);
    await machine.run(user.read(4096, 4096));
    await machine.sleep(60_000);
    assert.is(machine.inFlight(0), 1);
    disk.medium.release();
    await machine.run(hanging);
    assert.is(machine.inFlight(0), 0);
  });
});

test("the server sees at most one request less than it has tags", async () => {
  await withMachine(async (machine) => {
    const disk = addDisk(machine);
    await serve(machine);
    disk.medium.fault = () => ({ hangs: true });
    const user = machine.user("/dev/ublkb0");
    const reads = Array.from({ length: 20 }, (_, i) => user.read(i * 4096, 4096));
    await machine.sleep(1000);
    assert.is(machine.inFlight(0), 20);
    assert.is(disk.medium.hung, DEPTH - 1);
    disk.medium.fault = undefined;
    disk.medium.release();
    await machine.run(Promise.all(reads));
  });
});

test("users of a killed server wait, and the next one serves them", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    await withMachine(async (machine) => {
      const disk = addDisk(machine);
      await serve(machine);
      const user = machine.user("/dev/ublkb0");
      const bytes = pattern(16_384, seed);
      const writes = [0, 1, 2, 3].map((i) => user.write(i * 16_384, bytes));
      // At any time from before the first request to after the last.
      machine.scheduler.after(seed * 15, () => machine.kill());
      await machine.run(Promise.all(writes)).catch((error) => assert.instance(error, Killed));
      machine.kill();
      await machine.settle();
      const device = machine.ublk.devices.get(0);
      await machine.run(() => device?.state === UblkState.QUIESCED);
      assert.not.ok(device?.isOpen);
      const next = new Server(machine);
      await machine.run(machine.start(() => next.recover(0)));
      await machine.run(Promise.all(writes));
      for (let i = 0; i < 4; i++) {
        assert.equal(disk.bytes.slice(i * 16_384, (i + 1) * 16_384), bytes);
      }
      // The kernel has noticed one death once.
      await machine.sleep(1000);
      assert.is(machine.ublk.devices.get(0)?.state, UblkState.LIVE);
      user.close();
      await machine.run(next.stop());
      assert.equal(next.errors, []);
    }, seed);
  }
});

test("a server is not replaced while I/O of the dead one hangs", async () => {
  await withMachine(async (machine) => {
    const disk = addDisk(machine);
    await serve(machine);
    const user = machine.user("/dev/ublkb0");
    disk.medium.fault = () => ({ hangs: true });
    const write = user.write(0, pattern(4096, 9));
    await machine.sleep(10);
    machine.kill();
    await machine.settle();
    disk.medium.fault = undefined;
    const early = new Server(machine);
    const refused = machine.start(() =>
      early.recover(0, 1000).catch(({ code, errno }: UblkError) => [code, errno]),
    );
    // The dead process still has the disk open exclusively, too.
    assert.equal(await machine.run(refused), ["BACKING_BUSY", 16]);
    machine.kill();
    await machine.settle();
    disk.medium.release();
    const next = new Server(machine);
    await machine.run(machine.start(() => next.recover(0)));
    await machine.run(write);
  });
});

test("a killed life does nothing more, whatever its code still tries", async () => {
  await withMachine(async (machine, trace) => {
    addDisk(machine);
    const server = await serve(machine);
    const before = server.control.deviceInfo(0);
    machine.kill();
    let wasAnswered = false;
    before.then(
      () => {
        wasAnswered = true;
      },
      () => undefined,
    );
    await assertKilled(() => server.control.deviceInfo(0));
    await machine.settle();
    await machine.sleep(100_000);
    assert.not.ok(wasAnswered);
    assert.not.ok(trace.some((line) => line.includes("GET_DEV_INFO")));
  });
});

test("a control command of a killed life is carried out before the next life, or not at all", async () => {
  let [carriedOut, dropped] = [0, 0];
  for (let seed = 1; seed <= 20; seed++) {
    await withMachine(async (machine, trace) => {
      addDisk(machine);
      const server = await serve(machine);
      const isTold = (line: string): boolean => line.includes("ublk GET_DEV_INFO");
      server.control.deviceInfo(0).catch(() => undefined);
      await new Promise((resolve) => process.nextTick(resolve));
      machine.kill();
      await machine.settle();
      const before = trace.filter(isTold).length;
      if (before === 1) carriedOut++;
      else dropped++;
      await machine.sleep(100_000);
      assert.is(trace.filter(isTold).length, before);
    }, seed);
  }
  assert.ok(carriedOut > 0 && dropped > 0, `${carriedOut} carried out, ${dropped} dropped`);
});

test("what dying code has scheduled does not reach the next life", async () => {
  await withMachine(async (machine) => {
    const { process } = machine.start(() => machine);
    machine.kill();
    let happened = 0;
    machine.scheduler.after(1, () => happened++, process);
    setTimeout(() => happened++, 1);
    await machine.settle();
    machine.start(() => setTimeout(() => (happened += 10), 1));
    await machine.sleep(10);
    assert.is(happened, 10);
  });
});

async function assertKilled(call: () => Promise<unknown>): Promise<void> {
  // It fails at once, or never ends, but gets no answer.
  const end = await Promise.race([
    call().then(
      () => "answered",
      (error) => (error instanceof Killed ? "killed" : String(error)),
    ),
    new Promise((resolve) => queueMicrotask(() => queueMicrotask(() => resolve("waits")))),
  ]);
  assert.ok(end === "killed" || end === "waits", String(end));
}

test("after a power cut there is no device, and unflushed data may be lost", async () => {
  let [kept, lost] = [0, 0];
  for (let seed = 1; seed <= 20; seed++) {
    await withMachine(async (machine) => {
      const disk = addDisk(machine);
      await serve(machine);
      const user = machine.user("/dev/ublkb0");
      const [flushed, cached] = [pattern(4096, 1), pattern(4096, 50)];
      await machine.run(user.write(0, flushed));
      await machine.run(user.flush());
      await machine.run(user.write(0, cached));
      await machine.run(user.write(8192, cached));
      machine.cut();
      await machine.settle();
      assert.is(machine.ublk.devices.size, 0);
      for (let sector = 0; sector < 8; sector++) {
        const at = sector * 512;
        assert.ok([flushed[at], cached[at]].includes(disk.bytes[at]), "a sector is from elsewhere");
        assert.ok([0, cached[at]].includes(disk.bytes[8192 + at]));
        if (disk.bytes[at] === cached[at]) kept++;
        else lost++;
      }
      await machine.run(
        machine.start(async () => {
          assert.equal(listDeviceIds(), []);
          assert.not.ok(existsSync("/dev/ublkb0"));
          assert.ok(existsSync("/dev/sda"));
        }),
      );
    }, seed);
  }
  assert.ok(kept > 20 && lost > 20, `${kept} sectors were kept and ${lost} lost`);
});

test("control commands are refused as the driver refuses them", async () => {
  await withMachine(async (machine) => {
    addDisk(machine);
    const server = await serve(machine);
    const { control } = server;
    const refused = (call: Promise<unknown>): Promise<unknown> =>
      machine.run(
        call.then(
          () => 0,
          ({ errno }: UblkError) => errno,
        ),
      );
    const info = await machine.run(control.deviceInfo(0));
    assert.is(info?.serverFlagsHigh, OWNER);
    assert.is(info?.state, UblkState.LIVE);
    assert.is(info?.serverPid, process.pid);
    assert.is(await machine.run(control.deviceInfo(9)), undefined);
    assert.is(await refused(control.startDevice(0)), 17);
    assert.is(await refused(control.startDevice(9)), 19);
    assert.is(await refused(control.startRecovery(0)), 16);
    machine.ublk.fault = (name) => (name === "GET_DEV_INFO" ? { errno: 12 } : undefined);
    assert.is(await refused(control.deviceInfo(0)), 12);
  });
});

test("a control command that hangs is given up, cancelled, and delays no other", async () => {
  await withMachine(async (machine, trace) => {
    addDisk(machine);
    const { control } = await serve(machine);
    machine.ublk.fault = (_, id) => (id === 5 ? { hangs: true } : undefined);
    const hanging = control.deviceInfo(5).catch(({ code }: UblkError) => code);
    const other = control.deviceInfo(0);
    assert.is(await machine.run(hanging), "CONTROL_TIMEOUT");
    assert.is((await machine.run(other))?.id, 0);
    machine.ublk.release();
    assert.is(trace.filter((line) => line.includes("GET_DEV_INFO 5")).length, 1, "it hung only");
    machine.ublk.fault = () => ({ delayMs: 5000 });
    const before = machine.nowMs;
    await machine.run(control.deviceInfo(0));
    assert.ok(machine.nowMs - before >= 5000);
  });
});

test("memory that is unmapped under I/O is a violation", async () => {
  const machine = new SimMachine({ seed: 1 });
  try {
    const disk = addDisk(machine);
    disk.medium.fault = () => ({ hangs: true });
    await machine.run(
      machine.start(async () => {
        const fd = openSync("/dev/sda", "r");
        const ring = new Ring({ entries: 4 });
        const memory = MappedMemory.anonymous(4096);
        prepareRead(ring, fd, low32(memory.address), high32(memory.address), 512, 0, 0, 1, 0, 0);
        ring.submit();
        memory.unmap();
      }),
    );
    assert.equal(machine.violations, ["memory was unmapped under 1 pieces of I/O"]);
  } finally {
    await machine.close();
  }
});

test("the same seed repeats a run, and another seed gives another one", async () => {
  const run = (seed: number): Promise<readonly string[]> =>
    withMachine(async (machine) => {
      addDisk(machine);
      const server = await serve(machine);
      const user = machine.user("/dev/ublkb0");
      const writes = Array.from({ length: 50 }, (_, i) => user.write(i * 4096, pattern(4096, i)));
      await machine.run(Promise.all(writes));
      user.close();
      await machine.run(server.stop());
      machine.trace(`${machine.scheduler.count} events`);
    }, seed);
  const [first, again, other] = [await run(3), await run(3), await run(4)];
  assert.equal(first, again);
  assert.not.equal(first, other);
});

test.run();
