import { closeSync, writeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import { createMemoryFile, prepareNop, Reactor, type UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../dist/native.js";
import { openDescriptors, runChild } from "./support.js";

const WAKE = new BigUint64Array([1n]);

interface Setup {
  readonly reactor: Reactor;
  readonly messages: unknown[];
  readonly errors: unknown[];
  /** Sends a message as another thread would. */
  send(message: unknown): void;
}

/** A reactor on this thread; a message "throw" throws, "stop" stops it. */
function withReactor(use: (setup: Setup) => void): void {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const messages: unknown[] = [];
  const errors: unknown[] = [];
  const reactor = new Reactor({
    wakeFd,
    port: port2,
    onMessage: (message) => {
      messages.push(message);
      if (message === "throw") throw new Error("from a message");
      if (message === "stop") reactor.stop();
    },
    onError: (error) => errors.push((error as Error).message),
  });
  const send = (message: unknown): void => {
    port1.postMessage(message);
    writeSync(wakeFd, WAKE);
  };
  try {
    use({ reactor, messages, errors, send });
  } finally {
    port1.close();
    closeSync(wakeFd);
  }
}

test("messages arrive in order, and an exception in one loses none", () => {
  withReactor(({ reactor, messages, errors, send }) => {
    send(1);
    send("throw");
    send(2);
    reactor.setTimer(5, () => send("stop"));
    reactor.run();
    assert.equal(messages, [1, "throw", 2, "stop"]);
    assert.equal(errors, ["from a message"]);
  });
});

test("a thousand devices have room for their timers and handlers, all of which are served", () => {
  withReactor(({ reactor, errors }) => {
    const count = 4096;
    let [timers, completions] = [0, 0];
    const stopAtEnd = (): void => {
      if (timers === count && completions === count) reactor.stop();
    };
    const onTimer = (): void => {
      timers++;
      stopAtEnd();
    };
    const handler = {
      onCompletion: (): void => {
        completions++;
        stopAtEnd();
      },
    };
    for (let i = 0; i < count; i++) {
      reactor.setTimer(i % 7, onTimer);
      prepareNop(reactor.ring, 0, reactor.addHandler(handler), 0);
    }
    reactor.run();
    assert.equal([timers, completions], [count, count]);
    assert.equal(errors, []);
  });
});

test("timers fire in the order of their times, and their slots are reused", () => {
  withReactor(({ reactor, errors }) => {
    const fired: number[] = [];
    reactor.setTimer(30, () => fired.push(30));
    reactor.setTimer(0, () => fired.push(0));
    reactor.setTimer(10.5, () => fired.push(10));
    let left = 300;
    const again = (): void => {
      left--;
      if (left > 0) reactor.setTimer(0, again);
    };
    again();
    const stopWhenDone = (): void => {
      if (left === 0 && fired.length === 3) reactor.stop();
      else reactor.setTimer(5, stopWhenDone);
    };
    stopWhenDone();
    reactor.run();
    assert.equal(fired, [0, 10, 30]);
    assert.is(left, 0);
    assert.equal(errors, []);
  });
});

test("the loop can be driven by turns, each of which says whether there is another", () => {
  withReactor(({ reactor, messages, send }) => {
    send(1);
    assert.is(reactor.turn(), true);
    assert.equal(messages, [1]);
    send("stop");
    assert.is(reactor.turn(), false);
    assert.is(reactor.turn(), false, "it stays ended");
    assert.throws(
      () => reactor.ring.submitAndWait(0),
      (error: UringError) => error.code === "RING_CLOSED",
    );
  });
});

test("an exception in a handler does not end the loop", () => {
  withReactor(({ reactor, errors }) => {
    const id = reactor.addHandler({
      onCompletion(data) {
        if (data === 3) reactor.stop();
        throw new Error(`from completion ${data}`);
      },
    });
    for (const data of [1, 2, 3]) prepareNop(reactor.ring, data, id, 0);
    reactor.run();
    assert.equal(errors, ["from completion 1", "from completion 2", "from completion 3"]);
  });
});

test("a completion for a removed or unknown handler is reported, and the id is reused", () => {
  withReactor(({ reactor, errors }) => {
    const id = reactor.addHandler({ onCompletion: () => undefined });
    reactor.removeHandler(id);
    prepareNop(reactor.ring, 0, id, 0);
    prepareNop(reactor.ring, 0, 999, 0);
    reactor.setTimer(1, () => reactor.stop());
    reactor.run();
    assert.is(errors.length, 2);
    assert.is(reactor.addHandler({ onCompletion: () => undefined }), id);
  });
});

test("entries that are prepared when the loop stops are still submitted", () => {
  withReactor(({ reactor }) => {
    let completed = 0;
    const id = reactor.addHandler({ onCompletion: () => completed++ });
    prepareNop(reactor.ring, 0, id, 0);
    reactor.stop();
    reactor.run();
    assert.is(completed, 1);
  });
});

test("the loop takes more completions than its rings have places", () => {
  withReactor(({ reactor, errors }) => {
    let completed = 0;
    const id = reactor.addHandler({
      onCompletion() {
        completed++;
        if (completed === 10_000) reactor.stop();
      },
    });
    for (let i = 0; i < 10_000; i++) prepareNop(reactor.ring, i, id, 0);
    reactor.run();
    assert.is(completed, 10_000);
    assert.equal(errors, []);
  });
});

test("a registered file cannot be removed twice, and a full table is an error", () => {
  withReactor(({ reactor }) => {
    const index = reactor.addFile(0);
    reactor.removeFile(index);
    assert.throws(() => reactor.removeFile(index), /removed twice/);
    const first = index;
    const isFull = ({ code, errno }: UringError) => code === "REACTOR_FULL" && errno === 24;
    // As many as the table has, whose size is what this process may have open, at most.
    assert.throws(() => {
      for (let i = 0; i < 20_000; i++) reactor.addFile(0);
    }, isFull);
    reactor.removeFile(first);
    assert.is(reactor.addFile(0), first);
    assert.throws(
      () => reactor.addBuffer(0, 4096),
      (error: UringError) => error.errno > 0,
    );
    reactor.stop();
    reactor.run();
  });
});

test("the table of files is as large as the process's limit of open files lets it be", () => {
  const child = runChild(
    `import { MessageChannel } from "node:worker_threads";
    import { createMemoryFile, Reactor } from "@blksnap/uring";
    const { port1, port2: port } = new MessageChannel();
    const options = { wakeFd: -1, port, onMessage: () => undefined, onError: () => undefined };
    const reactor = new Reactor(options);
    const file = createMemoryFile("some");
    let files = 0;
    try {
      for (;;) files += reactor.addFile(file) >= 0;
    } catch ({ code }) {
      console.log(code, files);
    }
    for (const filesMax of [600, 300]) {
      try {
        new Reactor({ ...options, filesMax });
        console.log("made");
      } catch ({ code, errno }) {
        console.log(code, errno);
      }
    }
    port1.close();`,
    [],
    ["prlimit", "--nofile=520"],
  );
  assert.is(child.status, 0, child.errors);
  assert.equal(child.output.trim().split("\n"), ["REACTOR_FULL 512", "REGISTER_FAILED 24", "made"]);
});

test("slots of buffers are reserved for a driver once, as many as there are", () => {
  withReactor(({ reactor }) => {
    const first = reactor.takeBufferPlaces(12_000);
    const rest = reactor.takeBufferPlaces(1000);
    assert.equal(
      [first.length, rest.length, new Set([...first, ...rest]).size],
      [12_000, 288, 12_288],
    );
    assert.is(reactor.takeBufferPlaces(1).length, 0);
    reactor.giveBackBufferPlaces(rest);
    assert.throws(() => {
      reactor.attempt(() => {
        reactor.takeBufferPlaces(200);
        reactor.giveBackBufferPlaces(reactor.takeBufferPlaces(50));
        throw new Error("planned");
      });
    }, /planned/);
    assert.is(reactor.takeBufferPlaces(1000).length, 288);
    reactor.stop();
    reactor.run();
  });
});

test("a loop that can no longer be woken ends with an error", () => {
  const { port1, port2 } = new MessageChannel();
  const options = { port: port2, onMessage: () => undefined, onError: () => undefined };
  const reactor = new Reactor({ ...options, wakeFd: -1 });
  assert.throws(
    () => reactor.run(),
    (error: UringError) => error.code === "REACTOR_FAILED" && error.errno === 9,
  );
  port1.close();
});

test("a reactor leaves no descriptor behind, nor does one that could not be created", () => {
  const before = openDescriptors();
  withReactor(({ reactor }) => {
    reactor.stop();
    reactor.run();
  });
  const options = { wakeFd: -1, onMessage: () => undefined, onError: () => undefined };
  const { port1, port2 } = new MessageChannel();
  assert.throws(
    () => new Reactor({ ...options, port: port2, buffersMax: 1 << 20 }),
    (error: UringError) => error.code === "REGISTER_FAILED",
  );
  port1.close();
  assert.is(openDescriptors(), before);
});

test("cancelled timers free their slots, and only the others fire", () => {
  withReactor(({ reactor, errors }) => {
    const fired: string[] = [];
    let rounds = 0;
    const round = (): void => {
      rounds++;
      // Half of the places at a time, and none of them ever free by itself.
      const timers = Array.from({ length: 64 }, (_, i) =>
        reactor.setTimer(3_600_000, () => fired.push(`late ${i}`)),
      );
      for (const timer of timers) reactor.cancelTimer(timer);
      for (const timer of timers) reactor.cancelTimer(timer);
      if (rounds === 20) reactor.setTimer(0, () => reactor.stop());
      else reactor.setTimer(0, round);
    };
    const kept = reactor.setTimer(0, () => fired.push("kept"));
    round();
    reactor.run();
    assert.equal(fired, ["kept"]);
    assert.equal(errors, []);
    reactor.cancelTimer(kept);
  });
});

test("a timer that the kernel has no memory for is set again, unless it was cancelled", () => {
  withReactor(({ reactor, errors }) => {
    const { ring } = reactor;
    const { enter } = native;
    const timerHandler = 1;
    const refused = 1;
    let refusals = 3;
    native.enter = (...call) => {
      const status = enter(...call);
      const cqe = ring.headIndex();
      const isTimer = ring.ready() > 0 && ring.cqes32[cqe + 1] === timerHandler;
      if (isTimer && ring.cqes32[cqe] === refused && refusals > 0) {
        ring.cqes32[cqe + 2] = -12;
        refusals--;
      }
      return status;
    };
    const fired: string[] = [];
    // It has place 0, the others have place 1. Where one of those is lost it ends the test.
    const last = reactor.setTimer(2_000, () => reactor.stop());
    reactor.setTimer(0, () => {
      fired.push("first");
      const cancelled = reactor.setTimer(0, () => fired.push("cancelled"));
      refusals = 1;
      reactor.cancelTimer(cancelled);
      reactor.cancelTimer(last);
      reactor.setTimer(1, () => reactor.stop());
    });
    try {
      reactor.run();
    } finally {
      native.enter = enter;
    }
    assert.equal(fired, ["first"]);
    assert.equal(errors, []);
  });
});

test("a wake-up that the kernel has no memory or thread for is armed again, and no message is missed", () => {
  withReactor(({ reactor, messages, errors, send }) => {
    const { ring } = reactor;
    const { enter } = native;
    const wakeHandler = 0;
    const refusals = [-12, -125, -11];
    native.enter = (...call) => {
      const status = enter(...call);
      const cqe = ring.headIndex();
      const isWake = ring.ready() > 0 && ring.cqes32[cqe + 1] === wakeHandler;
      const refusal = isWake ? refusals.shift() : undefined;
      if (refusal !== undefined) {
        ring.cqes32[cqe + 2] = refusal;
        send(refusals.length === 0 ? "stop" : refusal);
      }
      return status;
    };
    try {
      send(0);
      reactor.run();
    } finally {
      native.enter = enter;
    }
    assert.equal(messages, [0, -12, -125, "stop"]);
    assert.equal(errors, []);
  });
});

test("a failed attempt frees what it has registered, and nothing else", () => {
  withReactor(({ reactor, send }) => {
    const kept = reactor.attempt(() => reactor.addFile(0));
    const before = openDescriptors();
    const ended: number[] = [];
    const handler = (id: number) => ({ onCompletion: () => ended.push(id) });
    const besides: string[] = [];
    reactor.noteTaken(() => besides.push("outside"));
    const fails = (): never => {
      reactor.noteTaken(() => besides.push("memory"));
      const file = createMemoryFile("taken");
      const index = reactor.addFile(file);
      closeSync(file);
      reactor.addHandler(handler(0));
      const inner = reactor.attempt(() => reactor.addHandler(handler(1)));
      reactor.removeFile(reactor.addFile(0));
      throw new Error(`cannot be made: ${index} ${inner}`);
    };
    const texts = [0, 1].map(() => {
      try {
        return reactor.attempt(fails);
      } catch (error) {
        return (error as Error).message;
      }
    });
    assert.equal(besides, ["memory", "memory"]);
    // The same places again: all were free.
    assert.is(texts[0], texts[1]);
    assert.match(texts[0] ?? "", `cannot be made: ${kept + 1} `);
    assert.is(openDescriptors(), before);
    reactor.removeFile(kept);
    assert.throws(() => reactor.removeFile(kept), "removed twice");
    send("stop");
    reactor.run();
  });
});

test.run();
