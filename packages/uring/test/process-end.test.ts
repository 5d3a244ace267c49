import { test } from "uvu";
import * as assert from "uvu/assert";
import { runChild } from "./support.js";

const IMPORTS = `
  import * as uring from "@blksnap/uring";
  import { setTimeout as sleep } from "node:timers/promises";
  const { MappedMemory, PromiseRing, Reactor, ReactorThread, Ring, low32, high32 } = uring;
  const page = MappedMemory.anonymous(4096);
  const address = [low32(page.address), high32(page.address)];
  new BigInt64Array(page.buffer).set([1000n, 0n]);
  const timeout = (ring, low, high) => uring.prepareTimeout(ring, ...address, low, high);
`;
const REACTOR = `
  const module = new URL("./workers/reactor.js", import.meta.url);
  const thread = new ReactorThread(module, {}, () => said(), () => {});
  let said;
  const answered = new Promise((resolve) => { said = resolve; });
  thread.post("hello");
`;

/** Each must end by itself, with its status and without a word of complaint. */
const STAGES: Record<string, [text: string, status: number]> = {
  "nothing used": ["", 0],
  "a ring open": ["const ring = new Ring({ entries: 8 });", 0],
  "a ring with an operation in flight": [
    "const ring = new Ring({ entries: 8 }); timeout(ring, 1, 0); ring.submit();",
    0,
  ],
  "a ring closed under an operation": [
    "const ring = new Ring({ entries: 8 }); timeout(ring, 1, 0); ring.submit(); ring.close();",
    0,
  ],
  "a promise ring open": ["const ring = new PromiseRing();", 0],
  "a promise ring closed": ["const ring = new PromiseRing(); ring.close();", 0],
  "process.exit under a promise": ["void new PromiseRing().submit(timeout); process.exit(5);", 5],
  "process.exit as a promise ends": [
    `const ring = new PromiseRing();
    for (let i = 0; i < 50; i++) void ring.submit((r, low, high) => uring.prepareNop(r, low, high, 0));
    process.exit(5);`,
    5,
  ],
  "process.exit under a reactor that starts": [`${REACTOR} process.exit(6);`, 6],
  "process.exit under a reactor that sleeps": [`${REACTOR} await answered; process.exit(6);`, 6],
  "process.exit under three reactors": [
    `const threads = [];
    for (let i = 0; i < 3; i++) { ${REACTOR} await answered; threads.push(thread); }
    process.exit(6);`,
    6,
  ],
  "a reactor stopped": [`${REACTOR} await answered; await thread.stop("stop");`, 0],
};

for (const [stage, [text, status]] of Object.entries(STAGES)) {
  test(`a process ends cleanly with ${stage}`, () => {
    const child = runChild(IMPORTS + text);
    assert.is(child.signal, null, child.errors);
    assert.is(child.errors, "");
    assert.is(child.status, status);
  });
}

test("a process ends with its exception under a reactor that sleeps", () => {
  const child = runChild(`${IMPORTS}${REACTOR} await answered; throw new Error("mine");`);
  assert.is(child.signal, null, child.errors);
  assert.is(child.status, 1);
  assert.match(child.errors, "mine");
});

test.run();
