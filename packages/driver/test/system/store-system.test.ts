import type { PromiseRing } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ringStoreSystem } from "../../dist/system/store-system.js";

const ask = (status: number): Promise<boolean> | undefined => {
  const ring = { submit: async () => status } as unknown as PromiseRing;
  return ringStoreSystem(ring).hasLostWrites?.(0);
};

test("every errno of a sync means lost writes, except those with which the kernel did not begin it", async () => {
  // As blk_status_to_errno() has them of a disk: I/O, medium, target, transport, timeout, offline, protection, space.
  for (const errno of [5, 61, 121, 67, 110, 19, 84, 28]) assert.is(await ask(-errno), true);
  // A quota; a handle of NFS that is stale, an export or a ticket that permits no more.
  for (const errno of [122, 116, 1, 13]) assert.is(await ask(-errno), true);
  // Of a driver that had no memory for them.
  assert.is(await ask(-12), true);
  // Not known to the kernel, not the right file, no thread for the question.
  for (const errno of [22, 95, 38, 9, 29, 4, 11, 125]) assert.is(await ask(-errno), false);
  assert.is(await ask(0), false);
});

test.run();
