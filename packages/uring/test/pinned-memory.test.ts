/** Memory that is registered in parts, and given back in slices. */
import { closeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { MappedMemory, PinnedMemory, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { isMapped } from "./support.js";

const MIB = 2 ** 20;

/** @param registered lengths of the buffers that the ring has */
function withReactor(use: (reactor: Reactor, registered: Map<number, number>) => void): void {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const { updateBuffer } = native;
  const registered = new Map<number, number>();
  native.updateBuffer = (handle, index, address, lengthBytes) => {
    if (lengthBytes === 0) registered.delete(index);
    else registered.set(index, lengthBytes);
    return updateBuffer(handle, index, address, lengthBytes);
  };
  const onError = (error: unknown): void => {
    throw error;
  };
  const reactor = new Reactor({ wakeFd, port: port2, onMessage: () => undefined, onError });
  try {
    use(reactor, registered);
  } finally {
    native.updateBuffer = updateBuffer;
    reactor.stop();
    reactor.turn();
    port1.close();
    closeSync(wakeFd);
  }
}

test("no unit lies in two parts, and what is behind the units is not registered", () => {
  withReactor((reactor, registered) => {
    const units = { units: 5, unitBytes: 3 * MIB, lengthBytes: 16 * MIB };
    const pinned = new PinnedMemory(reactor, units);
    pinned.register(5 * MIB);
    assert.is(registered.size, 0, "a part is registered as a whole");
    pinned.register();
    pinned.register();
    assert.equal([...registered.values()], [6 * MIB, 6 * MIB, 3 * MIB]);
    const indexes = [0, 1, 2, 3, 4].map((unit) => pinned.bufferIndexOf(unit));
    const [first, second, third] = registered.keys();
    assert.equal(indexes, [first, first, second, second, third]);
    pinned.free();
    pinned.free();
    assert.is(registered.size, 0);
  });
});

test("what a failed attempt has registered is not unregistered twice", () => {
  withReactor((reactor, registered) => {
    const pinned = new PinnedMemory(reactor, { units: 4, unitBytes: MIB, lengthBytes: 4 * MIB });
    const fail = (): void => {
      pinned.register();
      throw new Error("later");
    };
    assert.throws(() => reactor.attempt(fail), "later");
    assert.is(registered.size, 0);
    pinned.free();
  });
});

test("freed memory is unmapped in slices, and the rest at the reactor's end", () => {
  let rest = 0;
  withReactor((reactor) => {
    const first = MappedMemory.anonymous(3 * MIB);
    const second = MappedMemory.anonymous(8 * MIB);
    reactor.unmapInSlices(first);
    reactor.unmapInSlices(second);
    for (let slice = 0; slice < 3; slice++) reactor.turn();
    assert.ok(isMapped(first.address));
    reactor.turn();
    assert.not(isMapped(first.address));
    assert.ok(isMapped(second.address));
    rest = second.address;
  });
  assert.not(isMapped(rest));
});

test.run();
