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
  // V8 counts its bytes, and must not take more off than there are (Node 24).
  "a large mapping": ["globalThis.kept = MappedMemory.anonymous(2 ** 30);", 0],
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

/** A worker that is tied to the process and ends; the main thread has no turn meanwhile. */
function tied(end: string): string {
  const worker = `import("@blksnap/uring").then((uring) => {
    uring.endProcessWithThread(70);
    ${end}
  });`;
  return `
    import { Worker } from "node:worker_threads";
    const text = ${JSON.stringify(worker)};
    const resourceLimits = { maxOldGenerationSizeMb: 16 };
    new Worker(text, { eval: true, resourceLimits }).on("error", () => undefined);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`;
}

const ENDS: Record<string, string> = {
  "an exception": `setTimeout(() => { throw new Error("mine"); }, 200);`,
  "process.exit": "setTimeout(() => process.exit(3), 200);",
  "no memory":
    "setTimeout(() => { const all = []; for (;;) all.push(new Array(1e5).fill({})); }, 200);",
};

for (const [name, end] of Object.entries(ENDS)) {
  test(`a thread that the process is tied to takes it along: ${name}`, () => {
    const child = runChild(tied(end));
    assert.is(child.signal, null, child.errors);
    assert.is(child.status, 70, child.errors);
  });
}

test("a process is untied by a thread that ends in order", () => {
  const child = runChild(`
    import { Worker } from "node:worker_threads";
    const text = \`
      const { parentPort } = require("node:worker_threads");
      import("@blksnap/uring").then((uring) => {
        uring.endProcessWithThread(70)();
        parentPort.postMessage("untied");
      });\`;
    const worker = new Worker(text, { eval: true });
    await new Promise((resolve) => worker.once("exit", resolve));
    console.log("continues");`);
  assert.is(child.status, 0, child.errors);
  assert.match(child.output, "continues");
});

test.run();
