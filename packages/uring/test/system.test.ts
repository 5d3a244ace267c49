import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { eventually, receiveDatagrams } from "@blksnap/testing";
import {
  Capability,
  createMemoryFile,
  ioctl,
  ioctlAsync,
  LockType,
  sendDatagram,
  setAffinity,
  threadId,
  tryLockFile,
  tryLockFileAsync,
  type UringError,
  withoutCapability,
} from "@blksnap/uring";
import { native } from "@blksnap/uring/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { withFolderMeanwhile } from "./support.js";

const BLKGETSIZE64 = 0x80081272;
const FIONREAD = 0x541b;

test("ioctl writes into the bytes of any view", async () => {
  const fd = createMemoryFile("test");
  writeSync(fd, "12345");
  const read = openSync(`/proc/self/fd/${fd}`, "r");
  const word = new Int32Array(1);
  ioctl(read, FIONREAD, word);
  assert.is(word[0], 5);
  const view = new DataView(new ArrayBuffer(12), 8);
  ioctl(read, FIONREAD, view);
  assert.is(view.getInt32(0, true), 5);
  word[0] = 0;
  assert.is(await ioctlAsync(read, FIONREAD, word), 0);
  assert.is(word[0], 5);
  closeSync(read);
  closeSync(fd);
});

test("an ioctl that the file does not know is ENOTTY: thrown, or answered by the asynchronous one", async () => {
  const fd = createMemoryFile("test");
  const size = new BigUint64Array(1);
  assert.throws(
    () => ioctl(fd, BLKGETSIZE64, size),
    (error: UringError) => error.code === "SYSTEM_CALL_FAILED" && error.errno === 25,
  );
  assert.is(await ioctlAsync(fd, BLKGETSIZE64, size), -25);
  closeSync(fd);
});

test("a file lock belongs to the open file, not to the process", async () => {
  await withFolderMeanwhile(async (folder) => {
    writeFileSync(join(folder, "file"), "");
    const one = openSync(join(folder, "file"), "r+");
    const other = openSync(join(folder, "file"), "r+");
    assert.ok(tryLockFile(one));
    assert.not(tryLockFile(other));
    assert.not(tryLockFile(other, LockType.READ));
    assert.not(await tryLockFileAsync(other));
    assert.ok(tryLockFile(one, LockType.READ));
    assert.ok(tryLockFile(other, LockType.READ));
    assert.ok(tryLockFile(one, LockType.UNLOCK));
    assert.ok(await tryLockFileAsync(other));
    assert.not(await tryLockFileAsync(one));
    closeSync(one);
    closeSync(other);
  });
});

test("the main thread's id is the process's, and a CPU that is not there is refused", () => {
  assert.is(threadId(), process.pid);
  assert.is(setAffinity(100_000), -22);
});

test("the clock is read into memory, in microseconds, and into nothing that is too small for it", () => {
  const us = Float64Array.of(0, -1);
  assert.is(native.readClock(us), 0);
  const [firstUs = 0] = us;
  const beganMs = performance.now();
  while (performance.now() - beganMs < 2);
  native.readClock(us);
  assert.ok(us[0] - firstUs >= 2000, `${us[0] - firstUs}`);
  assert.is(us[1], -1);
  assert.is(native.readClock(new Float64Array(0)), -22);
  assert.is(native.readClock(new Float32Array(8) as unknown as Float64Array), -22);
});

test("a datagram comes to a socket with a path or an abstract name", async () => {
  await withFolderMeanwhile(async (folder) => {
    for (const name of [join(folder, "socket"), `@blksnap-test-${process.pid}`]) {
      const receiver = await receiveDatagrams(name);
      assert.is(sendDatagram(name, "READY=1\nSTATUS=ü"), 17);
      await eventually("it comes", () => receiver.received.length === 1);
      assert.is(receiver.received[0], "READY=1\nSTATUS=ü");
      await receiver.close();
    }
    assert.is(sendDatagram(join(folder, "none"), "x"), -2);
    assert.is(sendDatagram("", "x"), -36);
    assert.is(sendDatagram(`/${"x".repeat(200)}`, "x"), -36);
  });
});

test("sending does not wait if the receiver's queue is full", async () => {
  await withFolderMeanwhile(async (folder) => {
    const path = join(folder, "socket");
    const receiver = await receiveDatagrams(path);
    const { pid } = receiver;
    process.kill(pid, "SIGSTOP");
    const state = () => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.[0];
    await eventually("it reads nothing", () => state() === "T");
    const text = "x".repeat(1000);
    let sent = 0;
    while (sent < 100_000 && sendDatagram(path, text) === text.length) sent++;
    assert.is(sendDatagram(path, text), -11);
    process.kill(pid, "SIGCONT");
    await eventually("all that was sent comes", () => receiver.received.length >= sent);
    await receiver.close();
  });
});

/** Whether the calling thread may use a capability now. */
function isEffective(capability: number): boolean {
  const status = readFileSync(`/proc/thread-self/status`, "utf8");
  const [, set = ""] = /^CapEff:\s*([0-9a-f]+)/m.exec(status) ?? [];
  return ((BigInt(`0x${set}`) >> BigInt(capability)) & 1n) === 1n;
}

test("a capability is dropped while an action runs, and restored after it, even if it throws", () => {
  const before = isEffective(Capability.SYS_ADMIN);
  assert.is(
    withoutCapability(Capability.SYS_ADMIN, () => isEffective(Capability.SYS_ADMIN)),
    false,
  );
  assert.is(isEffective(Capability.SYS_ADMIN), before);
  const fail = (): never => {
    throw new Error("by intention");
  };
  assert.throws(() => withoutCapability(Capability.SYS_ADMIN, fail), /by intention/);
  assert.is(isEffective(Capability.SYS_ADMIN), before);
  assert.throws(
    () => withoutCapability(99, () => 0),
    (error: UringError) => error.code === "SYSTEM_CALL_FAILED" && error.errno === 22,
  );
});

test.run();
