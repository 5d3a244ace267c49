/** A device of a restored snapshot that cannot be attached with its area. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { attachPending } from "../../dist/recovery/after-reboot.js";
import { Waiting } from "../../dist/snapshot/patience.js";

const test = suite("attach pending");

const DEVICE = "/dev/blksnap-test-that-is-not-there";

/** The log if neither attempt can succeed, and the area's removal ends as `onAreaLost` does. */
async function attempted(onAreaLost: () => Promise<void>): Promise<string[]> {
  const said: string[] = [];
  const log = (_: unknown, text: string) => void said.push(text);
  const context = { logger: { info: log, warn: log, error: log, fatal: log } };
  const record = { uuid: "00000000-0000-4000-8000-000000000001", device: DEVICE, tracking: {} };
  const pending = { id: 1, record, journals: [] };
  const area = {};
  const tracker = await attachPending(
    context as never,
    pending as never,
    area as never,
    onAreaLost,
    new Waiting(),
  );
  assert.is(tracker, undefined);
  return said;
}

test("it is attached without its area when no later start can find the area", async () => {
  const said = await attempted(async () => {});
  assert.is(said.length, 2);
  assert.match(said[0], `${DEVICE} is not attached with its snapshot`);
  assert.match(said[1], `${DEVICE} is not attached again: `);
});

test("it stays unattached if a later start would find the area", async () => {
  const said = await attempted(() => Promise.reject(new Error("the medium is read-only")));
  assert.is(said.length, 2);
  assert.match(
    said[1],
    /before the next start: its lost diff area stays .*: the medium is read-only/,
  );
});

test.run();
