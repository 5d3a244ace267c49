import { ControlError } from "@blksnap/api";
import type { ReactorRequest } from "@blksnap/data-plane";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { holdAndSwitch, partsOf, rehearse } from "../../dist/snapshot/instant.js";
import type { Member } from "../../dist/snapshot/member.js";

const test = suite("instant");
const holdTimeoutMs = 1000;

/** Devices 1 to 5 on reactors 0 and 1. @param failing the kind of request that reactor 1 fails */
function world(failing?: string) {
  const asked: string[] = [];
  const reactors = {
    request: async (reactor: number, request: ReactorRequest) => {
      const of = "trackers" in request ? request.trackers : "areas" in request && request.areas;
      asked.push(`${request.type} ${reactor} ${JSON.stringify(of)}`);
      if (request.type === failing && reactor === 1) throw new Error("it fails");
      return { stallUs: reactor === 0 ? 20 : 30 };
    },
  };
  const members = [1, 2, 3, 4, 5].map((id) => ({
    tracker: { id, reactor: id % 2, device: `/dev/${id}` },
    area: { id: `a${id}` },
  }));
  const context = { reactors, holdTimeoutMs } as never;
  return { asked, context, parts: partsOf(members as unknown as Member[]) };
}

const HOLDS = ["hold 1 [1,3,5]", "hold 0 [2,4]"];
const area = (tracker: number) => `{"tracker":${tracker},"area":"a${tracker}"}`;
const SWITCHES = [`switch 1 [${[1, 3, 5].map(area)}]`, `switch 0 [${[2, 4].map(area)}]`];
const RELEASES = ["release 1 [1,3,5]", "release 0 [2,4]"];

test("each reactor is asked twice, however many devices it has", async () => {
  const { asked, context, parts } = world();
  const stallUs = await holdAndSwitch(context, parts, async () => void asked.push("held"));
  assert.equal(asked, [...HOLDS, "held", ...SWITCHES]);
  assert.is(stallUs, 30);
});

test("a rehearsal asks all reactors, and holds no device", async () => {
  const { asked, context, parts } = world();
  await rehearse(context, parts);
  assert.equal(asked, ["hold 1 []", "hold 0 []", "switch 1 []", "switch 0 []"]);
});

for (const [failing, expected] of [
  ["hold", [...HOLDS, ...RELEASES]],
  ["switch", [...HOLDS, "held", ...SWITCHES, ...RELEASES]],
] as const) {
  test(`all writers continue after a ${failing} that failed`, async () => {
    const { asked, context, parts } = world(failing);
    const taking = holdAndSwitch(context, parts, async () => void asked.push("held"));
    const error = await taking.catch((failure: unknown) => failure);
    assert.instance(error, ControlError);
    assert.is((error as ControlError).code, "TAKE_FAILED");
    assert.equal(asked, expected);
  });
}

test("all writers continue if what runs while they stand fails, and its error is reported", async () => {
  const { asked, context, parts } = world();
  const why = new Error("not synced");
  const taking = holdAndSwitch(context, parts, () => Promise.reject(why));
  assert.is(await taking.catch((failure: unknown) => failure), why);
  assert.equal(asked, [...HOLDS, ...RELEASES]);
});

test.run();
