/** What a live attach asks of operations on its device. */
import { Splice } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deviceLock } from "../../dist/driver-end.js";
import { TrackerOperations } from "../../dist/operations/tracker-operations.js";
import { assertSpliced } from "../../dist/tracker/splice-watch.js";

const NODE = { number: "254:3", name: "vg-data", uuid: "LVM-x", clone: "254:7" };

test("operations queue for the node, before it is attached as well as after", () => {
  const splice = new Splice(NODE);
  assert.is(deviceLock({ identity: "block:254:3" }), "device block:254:3");
  assert.is(deviceLock({ identity: "block:254:7", splice }), "device block:254:3");
});

test("a front that is out of its node and cannot be ended misses writes, and says so", async () => {
  const splice = new Splice(NODE);
  splice.state = "on";
  const tracker = {
    ...{ id: 1, device: "/dev/vg/data", front: { id: 0 }, splice, hasEnded: false },
    detach: () => Promise.reject(new Error("the front is in use")),
  };
  const live = {
    takeOut: async () => {
      splice.state = "ending";
    },
    removeClone: () => assert.unreachable("the front is on it"),
  };
  const registry = { trackers: new Map([[1, tracker]]) };
  const context = { logger: {} };
  const operations = new TrackerOperations(context as never, registry as never, 1, live as never);
  const failure = await operations.detach(tracker as never, {}).then(
    () => "",
    (error) => error.message,
  );
  assert.is(failure, "the front is in use");
  assert.is(registry.trackers.size, 1);
  assert.throws(() => assertSpliced(tracker as never), /writes were missed/);
});

test.run();
