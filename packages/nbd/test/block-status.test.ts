/** Replies to requests for block status fit into their buffer, and into one turn. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { putBlockStatus } from "../dist/block-status.js";
import type { MetaContext } from "../dist/exports.js";
import { RequestTable } from "../dist/request-table.js";
import { ReplyWriter } from "../dist/wire.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Finding runs is expensive; each block has other flags than the one before. */
class Slow implements MetaContext {
  readonly name = "x:slow";
  readonly reachBytes = 16 * MIB;
  flags = 0;
  coveredBytes = 0;

  runBytes(offsetBytes: number, endBytes: number): number {
    this.flags ^= 1;
    const bytes = Math.min(64 << 10, endBytes - offsetBytes);
    this.coveredBytes += bytes;
    return bytes;
  }
}

function answered(contexts: readonly Slow[], bufferBytes: number, isExtended = false): number {
  const writer = new ReplyWriter();
  writer.to(new RequestTable(1), 0, isExtended);
  const view = new DataView(new ArrayBuffer(bufferBytes));
  const headerView = new DataView(new ArrayBuffer(64));
  const place = { headerView, headerAt: 0, view, dataAt: 0, dataBytes: bufferBytes };
  const all = 2 ** contexts.length - 1;
  return putBlockStatus(place, writer, contexts, all, 0, GIB, false);
}

test("all contexts together are limited to one turn", () => {
  for (const count of [1, 3, 16]) {
    const contexts = Array.from({ length: count }, () => new Slow());
    answered(contexts, 256 << 10);
    const all = contexts.reduce((sum, one) => sum + one.coveredBytes, 0);
    assert.ok(all <= 16 * MIB, `${count} contexts: ${all} bytes`);
    for (const { coveredBytes } of contexts) {
      assert.ok(coveredBytes > 0 && coveredBytes % (64 << 10) === 0, String(coveredBytes));
    }
  }
});

test("the replies of many contexts fit into one buffer", () => {
  for (const bufferBytes of [4096, 256 << 10]) {
    for (const isExtended of [false, true]) {
      const contexts = Array.from({ length: 16 }, () => new Slow());
      assert.ok(answered(contexts, bufferBytes, isExtended) <= bufferBytes);
    }
  }
});

test.run();
