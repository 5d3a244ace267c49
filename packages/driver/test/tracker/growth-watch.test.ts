import { test } from "uvu";
import * as assert from "uvu/assert";
import { type GrowthSteps, GrowthWatch, sizeWhy } from "../../dist/tracker/growth-watch.js";

const MIB = 2 ** 20;
const FRONT = {
  isLive: true,
  capacityBytes: MIB,
  fixedWhy: undefined as string | undefined,
  path: "/dev/ublkb0",
};

function fakeTracker(grow: () => Promise<void> = async () => undefined) {
  return {
    ...{ id: 1, device: "/dev/sda", splice: undefined, originalBytes: MIB },
    geometry: { capacityBytes: MIB, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 },
    front: { ...FRONT },
    async presentCapacityBytes(): Promise<number> {
      return this.originalBytes;
    },
    grown: 0,
    async grow(): Promise<void> {
      await grow();
      this.grown++;
      this.geometry.capacityBytes = this.originalBytes;
      this.front.capacityBytes = this.originalBytes;
    },
  };
}

type Fake = ReturnType<typeof fakeTracker>;

async function watching(
  tracker: Fake,
  steps: Partial<GrowthSteps<Fake>>,
  play: (watch: GrowthWatch<Fake>, log: string[]) => Promise<void>,
): Promise<void> {
  const log: string[] = [];
  const say = (_: unknown, text?: string): void => void log.push(text ?? "");
  const all: GrowthSteps<Fake> = {
    isInSnapshot: () => false,
    keepsDiscards: async () => false,
    alone: (_, operation) => operation(),
    ...steps,
  };
  // Its own looks are never due.
  const watch = new GrowthWatch(() => [tracker], all, { info: say, error: say }, 2 ** 30);
  try {
    await play(watch, log);
  } finally {
    watch.stop();
  }
}

test("the front of an original that is larger at two checks grows, once", async () => {
  const tracker = fakeTracker();
  await watching(tracker, {}, async (watch, log) => {
    await watch.look();
    tracker.originalBytes = 2 * MIB;
    await watch.look();
    tracker.originalBytes = 3 * MIB;
    await watch.look();
    assert.is(tracker.grown, 0, "it is still becoming larger");
    assert.match(watch.whyOf(tracker) ?? "", /still becoming larger/);
    await watch.look();
    await watch.look();
    assert.is(tracker.grown, 1);
    assert.is(watch.whyOf(tracker), undefined);
    assert.equal(log, ["the front has grown with its original"]);
  });
});

test("a front that a daemon before has left smaller than its map grows, too", async () => {
  const tracker = fakeTracker();
  tracker.front.capacityBytes = MIB / 2;
  await watching(tracker, {}, async (watch) => {
    await watch.look();
    await watch.look();
    assert.is(tracker.grown, 1);
  });
});

test("nothing grows in a snapshot, with discards in flight, below a node, or without the kernel's support", async () => {
  const steps: Partial<GrowthSteps<Fake>>[] = [
    { isInSnapshot: () => true },
    { keepsDiscards: async () => true },
  ];
  const fronts = [{ isLive: false }, { fixedWhy: "no" }];
  const splice = { splice: {} } as unknown as Partial<Fake>;
  const changes = [...fronts.map((front) => ({ front: { ...FRONT, ...front } })), splice];
  const cases = [
    ...steps.map((one) => [one, {}] as const),
    ...changes.map((one) => [{}, one] as const),
  ];
  for (const [its, change] of cases) {
    const tracker = Object.assign(fakeTracker(), change);
    await watching(tracker, its, async (watch) => {
      tracker.originalBytes = 2 * MIB;
      for (let look = 0; look < 3; look++) await watch.look();
      assert.is(tracker.grown, 0);
    });
  }
});

test("status says that discards are in flight, until the front grows", async () => {
  let keepsDiscards = true;
  const tracker = fakeTracker();
  tracker.originalBytes = 2 * MIB;
  await watching(tracker, { keepsDiscards: async () => keepsDiscards }, async (watch, log) => {
    for (let look = 0; look < 3; look++) await watch.look();
    assert.match(watch.whyOf(tracker) ?? "", /discards .* on their way/);
    assert.equal(log, [], "it is no failure");
    keepsDiscards = false;
    await watch.look();
    assert.is(tracker.grown, 1);
    assert.is(watch.whyOf(tracker), undefined);
  });
});

test("status names the operation that a growth waits for", async () => {
  const tracker = fakeTracker();
  tracker.originalBytes = 2 * MIB;
  const alone = async (): Promise<void> => {
    throw new Error("the growth waited for detach of /dev/sda, which has run for 60 s");
  };
  await watching(tracker, { alone }, async (watch) => {
    for (let look = 0; look < 2; look++) await watch.look();
    assert.match(watch.whyOf(tracker) ?? "", /waited for detach/);
  });
});

test("a failure is reported once, with its reason, and the step is tried again later", async () => {
  let failures = 0;
  const tracker = fakeTracker(async () => {
    failures++;
    throw new Error("no memory");
  });
  tracker.originalBytes = 2 * MIB;
  await watching(tracker, {}, async (watch, log) => {
    for (let look = 0; look < 4; look++) await watch.look();
    assert.is(failures, 1, "not before a pause");
    assert.is(watch.whyOf(tracker), "no memory");
    assert.equal(log, ["the front has not grown with its original (no memory); retrying"]);
    tracker.originalBytes = MIB;
    await watch.look();
    assert.is(watch.whyOf(tracker), undefined);
  });
});

test("sizes that differ come with what to do", () => {
  const { geometry } = fakeTracker();
  let capacityBytes = MIB;
  const why = (originalBytes: number, fixedWhy?: string, id?: string, failure?: string) =>
    sizeWhy(
      { front: { fixedWhy, capacityBytes }, geometry },
      originalBytes,
      id === undefined ? undefined : { id },
      failure,
    );
  assert.is(why(MIB), null);
  assert.is(why(2 * MIB), null, "it is about to grow");
  assert.match(why(0) ?? "", /gone/);
  assert.match(why(MIB / 2) ?? "", /cannot become smaller.*attach it again/);
  assert.match(
    why(2 * MIB, "an old kernel", "s") ?? "",
    /^an old kernel: unmount the front, detach/,
  );
  assert.match(why(2 * MIB, undefined, "s") ?? "", /when snapshot s is destroyed/);
  assert.match(why(2 * MIB, undefined, undefined, "no memory") ?? "", /not grown yet: no memory/);
  // The map has the new size, and the kernel has not.
  capacityBytes = MIB / 2;
  assert.match(why(MIB, undefined, undefined, "no memory") ?? "", /not grown yet: no memory/);
  assert.match(why(MIB, undefined, "s") ?? "", /when snapshot s is destroyed/);
});

test.run();
