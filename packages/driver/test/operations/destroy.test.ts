/** A destroy while the medium does not answer: copies continue, because the medium could bring the images back. */
import type { ControlError } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SnapshotOperations } from "../../dist/operations/snapshot-operations.js";

function world(withdraw: () => Promise<void>) {
  const steps: string[] = [];
  const step = (what: string) => async () => void steps.push(what);
  const snapshot = {
    id: "its-id",
    members: new Map(),
    events: { close: () => undefined },
    enterBestEffort: (state: string) => steps.push(state),
    closeStorage: step("stores closed"),
    forget: step("forgotten"),
    persistence: {
      isOn: true,
      withdraw,
      mayComeBack: false,
      forget: async () => undefined,
      unlessHung: (_text: string, work: () => Promise<void>) => work(),
    },
  };
  const context = { logger: { info: () => undefined } };
  const registry = { snapshots: new Map([[snapshot.id, snapshot]]) };
  const operations = new SnapshotOperations(context as never, registry as never, {} as never);
  return { steps, registry, destroy: () => operations.destroy(snapshot as never) };
}

test("destroy ends nothing before the medium has recorded it", async () => {
  let isAnswered = false;
  const { destroy, steps, registry } = world(async () => {
    if (!isAnswered) throw new Error("/kept: the medium does not answer");
  });
  const { code, message, hint } = (await destroy().then(
    () => assert.unreachable("destroyed"),
    (error: ControlError) => error,
  )) as ControlError;
  assert.is(code, "PERSISTENT_STATE_UNUSABLE");
  assert.match(message, /its-id is not destroyed.*\/kept/);
  assert.match(hint ?? "", /continues as before/);
  assert.equal(steps, []);
  assert.is(registry.snapshots.size, 1);
  isAnswered = true;
  await destroy();
  assert.equal(steps, ["destroying", "stores closed", "forgotten"]);
  assert.is(registry.snapshots.size, 0);
});

test.run();
