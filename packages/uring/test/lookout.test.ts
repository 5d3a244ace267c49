/** How a reactor waits for the next request of a user. Native calls are counted, time is not measured. */
import { closeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { prepareNop, Reactor, Ring, SetupFlag } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Lookout } from "../dist/lookout.js";
import { native } from "../dist/native.js";

const MISSES = 12;

/** A ring that records what is asked of it: looks find something, or a completion is there at once. */
class FakeRing {
  isFound = false;
  readyCount = 0;
  readonly calls: string[] = [];

  submitAndLook(): boolean {
    this.calls.push("look");
    return this.isFound;
  }

  submitAndWait(): void {
    this.calls.push("sleep");
  }

  ready(): number {
    return this.readyCount;
  }

  /** The calls of a wait. */
  wait(lookout: Lookout): string {
    this.calls.length = 0;
    lookout.wait(this as unknown as Ring);
    return this.calls.join(" ");
  }
}

test("it looks once for each expectation, and never where it is not to", () => {
  const ring = new FakeRing();
  ring.isFound = true;
  const lookout = new Lookout(true);
  assert.is(ring.wait(lookout), "sleep");
  lookout.expect(true);
  assert.is(ring.wait(lookout), "look sleep", "what is found needs a call");
  assert.is(ring.wait(lookout), "sleep");
  lookout.expect(true);
  lookout.expect(false);
  assert.is(ring.wait(lookout), "sleep", "another request has come meanwhile");
  ring.readyCount = 1;
  lookout.expect(true);
  assert.is(ring.wait(lookout), "look", "a completion that is there needs none");
  const asleep = new Lookout(false);
  asleep.expect(true);
  assert.is(ring.wait(asleep), "sleep");
});

test("after misses it looks less and less often, after a find at each chance", () => {
  const ring = new FakeRing();
  const lookout = new Lookout(true);
  const chancesUntilLook = (): number => {
    for (let chances = 1; ; chances++) {
      lookout.expect(true);
      if (ring.wait(lookout).startsWith("look")) return chances;
    }
  };
  const gaps = Array.from({ length: MISSES }, chancesUntilLook);
  assert.equal(gaps, [1, 3, 5, 9, 17, 33, 65, 129, 257, 257, 257, 257]);
  ring.isFound = true;
  assert.is(chancesUntilLook(), 257);
  assert.is(chancesUntilLook(), 1);
});

test("the kernel shows in the ring's flags that a completion waits for a call", () => {
  const { port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const onError = (error: unknown): void => {
    throw error;
  };
  const onMessage = (): void => undefined;
  const reactor = new Reactor({ wakeFd, port: port2, onMessage, onError, isLively: true });
  let fired = 0;
  reactor.setTimer(1, () => fired++);
  assert.ok(reactor.ring.submitAndLook(2 ** 31), "it was looked for, and not found");
  assert.is(reactor.ring.ready(), 0);
  const before = reactor.ring.enterCalls;
  reactor.turn();
  assert.equal([fired, reactor.ring.enterCalls - before], [1, 1]);
  reactor.stop();
  reactor.turn();
  port2.close();
  closeSync(wakeFd);
});

test("what completes with its submission is found without a look", () => {
  const flags = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN | SetupFlag.TASKRUN_FLAG;
  const ring = new Ring({ entries: 8, flags });
  prepareNop(ring, 0, 0, 0);
  assert.ok(ring.submitAndLook(0));
  assert.equal([ring.ready(), ring.enterCalls], [1, 1]);
  assert.not(ring.submitAndLook(0) && ring.ready() === 0);
  ring.close();
});

test.run();
