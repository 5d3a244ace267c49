/** What a take does for all of its devices at once. */
import { Serial } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { machinePorts } from "../../dist/index.js";
import { takeSnapshot } from "../../dist/snapshot/take.js";
import { NO_LOSS } from "../../dist/tracker/tracker-record.js";

function memberOf(id: number) {
  const tracker = {
    ...{ id, reactor: 0, device: `/dev/disk${id}`, loss: NO_LOSS },
    recordLoss: () => undefined,
    presentCapacityBytes: async () => 2 ** 20,
    geometry: { capacityBytes: 2 ** 20, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 },
    backing: { kind: "file", fd: -1, params: {} },
    front: { id, deviceNumber: `0:${id}`, isLive: true, capacityBytes: 2 ** 20 },
    commitJournal: async () => undefined,
    withoutRotation: (operation: () => Promise<unknown>) => operation(),
  };
  return { tracker, image: undefined as unknown };
}

test("images of all devices start together, and the take ends with the last", async () => {
  const members = new Map([1, 2, 3].map((id) => [id, memberOf(id)]));
  const starting: (() => void)[] = [];
  let isTaken = false;
  const snapshot = {
    ...{ id: "its-id", members, state: "taking", save: () => undefined },
    ...{ beginTake: () => undefined, storage: { stores: [] }, persistence: { isOn: false } },
    areaSetup: async ({ id }: { id: string }) => ({ id, extents: [0, 1] }),
    endTake: async () => {
      isTaken = true;
    },
  };
  const context = {
    reactors: { request: async () => ({ stallUs: 1 }) },
    state: { createMap: async () => ({ name: "map", fd: -1, lengthBytes: 0 }) },
    logger: { info: () => undefined, warn: () => undefined, error: () => undefined },
    frontend: {
      kind: "ublk",
      start: () =>
        new Promise((resolve) => starting.push(() => resolve({ path: "/dev/image", id: 9 }))),
      links: { add: () => undefined, remove: () => undefined },
    },
    freezing: machinePorts().freezing,
    freezes: new Serial(),
    ...{ freezeTimeoutMs: 60_000, holdTimeoutMs: 60_000 },
  };
  const taking = takeSnapshot(context as never, snapshot as never);
  taking.catch(() => undefined);
  // Freezing runs programs.
  while (starting.length === 0) {
    await Promise.race([taking, new Promise((resolve) => setTimeout(resolve, 1))]);
  }
  assert.is(starting.length, members.size);
  const [first, ...others] = starting;
  for (const start of others) start();
  await new Promise((resolve) => setImmediate(resolve));
  assert.not(isTaken);
  first?.();
  await taking;
  assert.ok(isTaken);
  assert.ok([...members.values()].every(({ image }) => image !== undefined));
});

test.run();
