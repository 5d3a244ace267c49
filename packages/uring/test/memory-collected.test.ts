import { setTimeout as sleep } from "node:timers/promises";
import { MappedMemory, Ring } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isMapped, openDescriptors } from "./support.js";

async function collect(): Promise<void> {
  for (let i = 0; i < 10; i++) {
    globalThis.gc?.();
    await sleep(2);
  }
}

/** What is collected is finalized in a later turn, and not in a certain one. */
async function collectUntil(isDone: () => boolean): Promise<void> {
  for (let tries = 0; tries < 100 && !isDone(); tries++) await collect();
}

test("a forgotten mapping ends when it is collected", async () => {
  const forget = (): number => MappedMemory.anonymous(32 << 20).address;
  const address = forget();
  await collectUntil(() => !isMapped(address));
  assert.not(isMapped(address));
});

test("a view alone keeps its mapping", async () => {
  const view = (): { view: Uint8Array; address: number } => {
    const memory = MappedMemory.anonymous(32 << 20);
    return { view: new Uint8Array(memory.buffer).fill(3), address: memory.address };
  };
  const kept = view();
  await collect();
  assert.ok(isMapped(kept.address));
  assert.is(kept.view[1 << 20], 3);
});

test("a forgotten ring ends when it is collected", async () => {
  const before = openDescriptors();
  const forget = (): void => {
    for (let i = 0; i < 10; i++) new Ring({ entries: 8 });
  };
  forget();
  assert.is(openDescriptors(), before + 10);
  await collectUntil(() => openDescriptors() === before);
  assert.is(openDescriptors(), before);
});

test.run();
