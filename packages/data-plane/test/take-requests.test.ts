import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { AreaId } from "../dist/area-id.js";
import type { SwitchReply } from "../dist/messages.js";
import { carryOutTake } from "../dist/take-requests.js";

const test = suite("take-requests");
const HOLD_MS = 1000;

/** Devices 1 to 3; `drain` answers the hold of one. */
function world(failing?: number) {
  const calls: string[] = [];
  const drain: Record<number, () => void> = {};
  const deviceOf = (tracker: number) => {
    if (tracker > 3) throw new Error(`no tracker ${tracker}`);
    return {
      hold(deadlineMs: number, onDrained: () => void): void {
        assert.is(deadlineMs, HOLD_MS);
        calls.push(`hold ${tracker}`);
        drain[tracker] = onDrained;
      },
      switchAndRelease(area: AreaId): number {
        calls.push(`switch ${tracker} to ${area}`);
        return 10 * tracker;
      },
      release(): void {
        calls.push(`release ${tracker}`);
        if (tracker === failing) throw new Error("a held write fails");
      },
    };
  };
  const devices = {
    deviceOf,
    find: (tracker: number) => (tracker > 3 ? undefined : deviceOf(tracker)),
  };
  const answers: (SwitchReply | undefined)[] = [];
  const ask = (request: Parameters<typeof carryOutTake>[1]) =>
    carryOutTake(devices, request, (reply) => answers.push(reply));
  return { answers, ask, calls, drain };
}

test("a hold is answered once, when the last device has drained", () => {
  const { answers, ask, calls, drain } = world();
  ask({ type: "hold", trackers: [1, 2, 3], deadlineMs: HOLD_MS });
  assert.equal(calls, ["hold 1", "hold 2", "hold 3"]);
  drain[3]?.();
  drain[1]?.();
  assert.equal(answers, []);
  drain[2]?.();
  assert.is(answers.length, 1);
});

test("a hold that one device cannot begin is not answered by the others", () => {
  const { answers, ask, drain } = world();
  const hold = { type: "hold", trackers: [1, 7], deadlineMs: HOLD_MS } as const;
  assert.throws(() => ask(hold), /no tracker 7/);
  drain[1]?.();
  assert.equal(answers, []);
});

test("a switch answers how long the writers of the slowest device stood", () => {
  const { answers, ask, calls } = world();
  const areas = [2, 3, 1].map((tracker) => ({ tracker, area: `a${tracker}` as AreaId }));
  ask({ type: "switch", areas });
  assert.equal(calls, ["switch 2 to a2", "switch 3 to a3", "switch 1 to a1"]);
  assert.equal(answers, [{ stallUs: 30 }]);
});

test("a release reaches all that are there, whatever one of them throws", () => {
  const { answers, ask, calls } = world(1);
  const release = { type: "release", trackers: [1, 7, 2] } as const;
  assert.throws(() => ask(release), /a held write fails/);
  assert.equal(calls, ["release 1", "release 2"]);
  assert.equal(answers, []);
});

test("a rehearsal, without devices, is answered at once", () => {
  const { answers, ask } = world();
  ask({ type: "hold", trackers: [], deadlineMs: HOLD_MS });
  ask({ type: "switch", areas: [] });
  assert.equal(answers, [undefined, { stallUs: 0 }]);
});

test.run();
