import { test } from "uvu";
import * as assert from "uvu/assert";
import { Notices } from "../dist/notices.js";
import { Registry } from "../dist/registry.js";
import type { Tracker } from "../dist/tracker/tracker.js";

const silent = { warn: () => undefined, error: () => undefined };

/** A registry whose trackers say what is asked of their journals. */
function desk() {
  const asked: string[] = [];
  const registry: Registry = new Registry(
    () => [],
    (tracker) => notices.actOnUnclaimed(tracker),
  );
  const notices = new Notices(registry, silent as never);
  const add = (id: number) =>
    registry.addTracker({
      id,
      rotateJournal: async () => asked.push(`rotate ${id}`),
      failJournal: async (errno: number) => asked.push(`fail ${id}: ${errno}`),
    } as unknown as Tracker);
  return { asked, notices, add };
}

test("what a journal tells before its tracker is known is acted on once it is", () => {
  const { asked, notices, add } = desk();
  notices.begin();
  notices.take(0, { notice: "journalLow", tracker: 2 });
  notices.take(0, { notice: "journalFault", tracker: 3, errno: 5 });
  add(1);
  assert.equal(asked, []);
  add(3);
  add(2);
  assert.equal(asked, ["fail 3: 5", "rotate 2"]);
  notices.take(0, { notice: "journalLow", tracker: 2 });
  assert.equal(asked.slice(2), ["rotate 2"]);
});

test("while recovering nothing is acted on", () => {
  const { asked, notices, add } = desk();
  add(1);
  notices.take(0, { notice: "journalLow", tracker: 1 });
  assert.equal(asked, []);
  notices.begin();
  assert.equal(asked, ["rotate 1"]);
});

test.run();
