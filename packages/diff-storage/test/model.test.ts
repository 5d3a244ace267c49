// The allocator, its growth and its punching compared with plain sets, with random failures and latencies.

import {
  type DiffStorageEvent,
  type Extent,
  SlotAllocator,
  slotOffsetBytes,
  slotStore,
} from "@blksnap/diff-storage";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ManualClock, settle } from "../dist/testing/clock.js";
import { type FakeOutcome, FakeStore } from "../dist/testing/fake-store.js";
import { SLOT_BYTES } from "./support.js";

const TIMEOUT_MS = 1000;
/** For a step before the start. */
const FILL_TIMEOUT_MS = 6 * TIMEOUT_MS;

type Step =
  | { readonly do: "take"; readonly maxSlots: number }
  | { readonly do: "wait"; readonly maxSlots: number }
  | { readonly do: "free"; readonly pick: number; readonly count: number }
  | { readonly do: "pass"; readonly ms: number };

interface StorePlan {
  readonly kind: "file" | "block" | "memory";
  readonly openedSlots: number;
  readonly limitSlots: number | undefined;
  readonly diskSlots: number | undefined;
  readonly outcomes: readonly FakeOutcome[];
  /** The outcome once the others are used up. */
  readonly afterwards: FakeOutcome;
}

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("take" as const),
      maxSlots: fc.integer({ min: 1, max: 20 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      maxSlots: fc.integer({ min: 1, max: 20 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("free" as const),
      pick: fc.nat(),
      count: fc.integer({ min: 1, max: 24 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("pass" as const), ms: fc.nat({ max: 1500 }) }),
  },
);

const outcome: fc.Arbitrary<FakeOutcome> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ delayMs: fc.nat({ max: 300 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      delayMs: fc.nat({ max: 300 }),
      errnoName: fc.constantFrom("EIO", "ENOSPC"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ delayMs: fc.integer({ min: 900, max: 9000 }) }) },
  { weight: 1, arbitrary: fc.constant({ delayMs: Number.POSITIVE_INFINITY }) },
);

const storePlan: fc.Arbitrary<StorePlan> = fc.record({
  kind: fc.constantFrom("file" as const, "block" as const, "memory" as const),
  openedSlots: fc.nat({ max: 30 }),
  limitSlots: fc.option(fc.integer({ min: 30, max: 100 }), { nil: undefined }),
  diskSlots: fc.option(fc.integer({ min: 10, max: 120 }), { nil: undefined }),
  outcomes: fc.array(outcome, { maxLength: 12 }),
  afterwards: fc.constantFrom<FakeOutcome>(
    { delayMs: 1 },
    { delayMs: 1 },
    { delayMs: 1, errnoName: "EIO" },
  ),
});

const plan = fc.record({
  stores: fc.array(storePlan, { minLength: 1, maxLength: 3 }),
  portionSlots: fc.integer({ min: 1, max: 32 }),
  limitSlots: fc.option(fc.integer({ min: 1, max: 120 }), { nil: undefined }),
  recover: fc.boolean(),
  steps: fc.array(step, { maxLength: 60 }),
});

function fail(what: string): never {
  throw new Error(what);
}

type Plan = typeof plan extends fc.Arbitrary<infer P> ? P : never;

class Run {
  readonly clock = new ManualClock();
  readonly events: DiffStorageEvent[] = [];
  readonly stores: FakeStore[];
  readonly allocator: SlotAllocator;
  readonly held = new Set<number>();
  readonly limitSlots: number;
  #open = 0;
  #failure: unknown;

  constructor(settings: Plan) {
    this.stores = settings.stores.map((store) => this.#makeStore(store));
    this.limitSlots = settings.limitSlots ?? Number.POSITIVE_INFINITY;
    this.allocator = new SlotAllocator(this.stores, {
      slotBytes: SLOT_BYTES,
      portionBytes: settings.portionSlots * SLOT_BYTES,
      growthTimeoutMs: TIMEOUT_MS,
      clock: this.clock,
      onEvent: (event) => void this.events.push(event),
      ...(settings.limitSlots === undefined
        ? {}
        : { limitBytes: settings.limitSlots * SLOT_BYTES }),
    });
    if (settings.recover && settings.stores[0].openedSlots > 1) {
      this.allocator.reserveForRecovery([0]);
      this.held.add(0);
    }
  }

  #makeStore(store: StorePlan): FakeStore {
    const queue = [...store.outcomes];
    const next = (): FakeOutcome => queue.shift() ?? store.afterwards;
    return new FakeStore({
      clock: this.clock,
      kind: store.kind,
      openedBytes: store.openedSlots * SLOT_BYTES,
      openedBackedBytes: Math.min(store.openedSlots, 1) * SLOT_BYTES,
      onPreallocate: next,
      onPunch: next,
      ...(store.limitSlots === undefined ? {} : { limitBytes: store.limitSlots * SLOT_BYTES }),
      ...(store.diskSlots === undefined ? {} : { diskBytes: store.diskSlots * SLOT_BYTES }),
    });
  }

  got(extent: Extent, maxSlots: number): void {
    assert.ok(extent.count >= 1 && extent.count <= Math.min(1024, maxSlots), "extent size");
    for (let slot = extent.firstSlot; slot < extent.firstSlot + extent.count; slot++) {
      assert.not.ok(this.held.has(slot), `slot ${slot} was handed out twice`);
      this.held.add(slot);
      const store = this.stores[slotStore(slot)];
      const backed = store.isBacked(slotOffsetBytes(slot, SLOT_BYTES), SLOT_BYTES);
      assert.ok(backed, `slot ${slot} has no space behind it`);
    }
  }

  /** A wait must be answered within the time limit, whatever the stores do. */
  wait(maxSlots: number): void {
    const startedMs = this.clock.nowMs();
    this.#open += 1;
    const answered = this.allocator.allocateExtentWhenReady(maxSlots).then((answer) => {
      this.#open -= 1;
      const tookMs = this.clock.nowMs() - startedMs;
      assert.ok(tookMs <= TIMEOUT_MS, `answered after ${tookMs} ms`);
      if (answer !== "full") this.got(answer, maxSlots);
    });
    answered.catch((error: unknown) => {
      this.#failure ??= error;
    });
  }

  free(pick: number, count: number): void {
    const slots = [...this.held];
    if (slots.length === 0) return;
    const first = slots[pick % slots.length];
    let end = first;
    while (end < first + count && this.held.delete(end)) end += 1;
    this.allocator.free(first, end - first);
  }

  async check(): Promise<void> {
    await settle();
    if (this.#failure !== undefined) throw this.#failure;
    const stats = this.allocator.stats();
    assert.is(stats.allocatedBytes, this.held.size * SLOT_BYTES);
    assert.ok(stats.capacityBytes <= this.limitSlots * SLOT_BYTES, "within the limit");
    assert.ok(stats.allocatedBytes + stats.freeBytes <= stats.capacityBytes);
    for (const [index, store] of stats.stores.entries()) {
      const { kind, openedBytes, backedEndBytes } = this.stores[index];
      const known = store.capacityBytes + store.holeBytes;
      assert.ok(known >= openedBytes, "no slot is forgotten");
      if (kind === "block") assert.is(known, openedBytes);
      const bound = Math.min(this.limitSlots * SLOT_BYTES, store.limitBytes ?? Infinity);
      assert.ok(backedEndBytes <= Math.max(openedBytes, bound), "no file longer than its limit");
      assert.ok(store.capacityBytes <= (store.limitBytes ?? Infinity), "within the store's limit");
    }
  }

  async run(steps: readonly Step[]): Promise<void> {
    // Each store may use the time limit once.
    const passing = this.clock.advance(FILL_TIMEOUT_MS * this.stores.length);
    await Promise.race([this.allocator.start(false), passing.then(() => fail("start hangs"))]);
    await passing;
    for (const action of steps) {
      if (action.do === "take") {
        const answer = this.allocator.allocateExtent(action.maxSlots);
        if (typeof answer !== "string") this.got(answer, action.maxSlots);
      } else if (action.do === "wait") this.wait(action.maxSlots);
      else if (action.do === "free") this.free(action.pick, action.count);
      else await this.clock.advance(action.ms);
      await this.check();
    }
    await this.clock.advance(TIMEOUT_MS);
    assert.is(this.#open, 0, "no caller waits without end");
    await this.check();
    this.allocator.stop();
    assert.is(this.allocator.allocateExtent(1), "full");
  }
}

test("no slot is handed out twice or without space, limits hold, and every wait is answered", async () => {
  const property = fc.asyncProperty(plan, async (settings) => {
    await new Run(settings).run(settings.steps);
  });
  await fc.assert(property, { numRuns: 400 });
});

test.run();
