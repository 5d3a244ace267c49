import { Readable } from "node:stream";
import type { DiffHead, DiffRange } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type FakeDaemon, startFakeDaemon } from "../../api-server/dist/testing/fake-daemon.js";
import { failureOf, type Harness, startHarness } from "./harness.js";

const device = "/dev/loop0";
const BLOCK_BYTES = 65_536;

/** Every other block of the device is changed. */
async function prepared(): Promise<Harness & { readonly id: string }> {
  const harness = await startHarness();
  const id = await harness.create();
  const ranges = Array.from({ length: 100 }, (_, i) => ({
    offset_bytes: 2 * i * BLOCK_BYTES,
    length_bytes: BLOCK_BYTES,
  }));
  await harness.client.markDirty(device, ranges);
  await harness.client.snapshotTake(id);
  return { ...harness, id };
}

/** Makes the driver return its ranges in batches. */
function inBatches({ driver }: Harness, of: number, between: (batch: number) => Promise<void>) {
  const diff = driver.diff.bind(driver);
  driver.diff = async (...words) => {
    const { ranges, ...head } = await diff(...words);
    const all: DiffRange[] = [];
    for await (const batch of ranges) all.push(...batch);
    async function* batches() {
      for (let at = 0; at < all.length; at += of) {
        await between(at / of);
        yield all.slice(at, at + of);
      }
    }
    return { ...head, ranges: Readable.from(batches()) };
  };
}

async function offsetsOf(extents: AsyncIterable<DiffRange>): Promise<number[]> {
  const offsets: number[] = [];
  for await (const { offset_bytes } of extents) offsets.push(offset_bytes / BLOCK_BYTES);
  return offsets;
}

const ALL = Array.from({ length: 100 }, (_, i) => 2 * i);

test("extents come in order from an offset on, after the head", async () => {
  const harness = await prepared();
  const { client, stop } = harness;
  inBatches(harness, 7, async () => undefined);
  const heads: DiffHead[] = [];
  const onHead = (head: DiffHead) => void heads.push(head);
  assert.equal(await offsetsOf(client.changedExtents(device, 0, { onHead })), ALL);
  const { ranges: _, ...head } = await client.diff(device, 0);
  assert.equal(heads, [head]);
  const offsetBytes = 150 * BLOCK_BYTES + 512;
  const [first, ...rest] = await offsetsOf(client.changedExtents(device, 0, { offsetBytes }));
  assert.equal([first! * BLOCK_BYTES, rest], [offsetBytes, ALL.slice(76)]);
  assert.equal(await offsetsOf(client.changedExtents(device, 1)), []);
  await stop();
});

test("extents continue with the next daemon at the offset that they had reached", async () => {
  const harness = await prepared();
  const { client, daemon, driver, socketPath, stop } = harness;
  let asked = 0;
  // It answers before its start has ended.
  let next: Promise<FakeDaemon> | undefined;
  inBatches(harness, 10, async (batch) => {
    if (batch !== 3 || asked++ > 0) return;
    // The connection breaks in the middle of a response.
    await daemon.server.close(0);
    next = startFakeDaemon(socketPath, driver);
    await next;
  });
  let heads = 0;
  const onHead = () => void heads++;
  const extents = client.changedExtents(device, 0, { resumeMs: 60_000, onHead });
  assert.equal(await offsetsOf(extents), ALL);
  assert.equal([heads, asked], [1, 2], "it was cut off, and begun again");
  await (await next!).server.close();
  await stop();
});

test("extents are of one take: another take in between ends them with a named error", async () => {
  const harness = await prepared();
  const { client, daemon, driver, id, socketPath, stop } = harness;
  // It answers before its start has ended.
  let next: Promise<FakeDaemon> | undefined;
  let isCut = false;
  inBatches(harness, 10, async (batch) => {
    if (batch !== 3 || isCut) return;
    isCut = true;
    await daemon.server.close(0);
    await driver.snapshotDestroy(id);
    const options = { devices: [device], stores: ["memory:"], limitBytes: 1 << 20 };
    await driver.snapshotTake((await driver.snapshotCreate(options)).id);
    next = startFakeDaemon(socketPath, driver);
    await next;
  });
  const extents = client.changedExtents(device, 0, { resumeMs: 60_000 });
  assert.is((await failureOf(offsetsOf(extents))).code, "CBT_NUMBER_CHANGED");
  const { generation_id: generation } = await client.cbtInfo(device);
  const other = client.changedExtents(device, 0, { generation, changesNumber: 1 });
  assert.is((await failureOf(offsetsOf(other))).code, "CBT_NUMBER_CHANGED");
  await (await next!).server.close();
  await stop();
});

test("extents that are not in order are refused", async () => {
  const { client, driver, stop } = await prepared();
  const diff = driver.diff.bind(driver);
  driver.diff = async (...words) => {
    const { ranges: _, ...head } = await diff(...words);
    const range = { offset_bytes: 4096, length_bytes: 4096, kind: "changed" } as const;
    return { ...head, ranges: Readable.from([[range], [range]]) };
  };
  const failure = await failureOf(offsetsOf(client.changedExtents(device, 0)));
  assert.is(failure.code, "RESPONSE_INVALID");
  await stop();
});

test.run();
