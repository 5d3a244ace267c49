/** Calls that must fail with a named error and change nothing. */
import * as assert from "uvu/assert";

export const NO_ID = "00000000-0000-4000-8000-000000000000";

/** Trackers and snapshots, without counters. */
export async function stateOf(t) {
  const { trackers, snapshots } = await t.client.status();
  return {
    trackers: trackers.map(({ device, front, snapshot_id }) => ({ device, front, snapshot_id })),
    snapshots: snapshots.map(({ id, taken, devices }) => ({ id, taken, count: devices.length })),
  };
}

/** Fails unless the call is refused with this name and errno, and changes nothing. */
export async function refused(t, code, errno, call) {
  const before = await stateOf(t);
  const answer = await call().then(
    (value) => ({ answered: value }),
    (error) => error,
  );
  assert.is(answer.code, code, answer.stack ?? JSON.stringify(answer));
  assert.is(answer.errno, errno, `errno of ${code}: ${answer.message}`);
  assert.ok(answer.message.length > 0 && answer.hint.length > 0);
  assert.not.match(answer.message, /\n/);
  assert.equal(await stateOf(t), before);
}
