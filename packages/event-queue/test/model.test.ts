/** The queue against a plain model that keeps every event ever pushed. */
import { EventQueue, type Follower, type WaitResult } from "@blksnap/event-queue";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";

type Step =
  | { readonly do: "push" }
  | { readonly do: "wait" }
  | { readonly do: "abort" }
  | { readonly do: "subscribe"; readonly back: number }
  | { readonly do: "read"; readonly reader: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.constant<Step>({ do: "push" }) },
  { weight: 3, arbitrary: fc.constant<Step>({ do: "wait" }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: "abort" }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("subscribe" as const), back: fc.nat({ max: 12 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("read" as const), reader: fc.nat({ max: 5 }) }),
  },
);

interface Reader {
  readonly follower: Follower<number>;
  cursor: number;
}

interface OpenWait {
  readonly result: Promise<WaitResult<number>>;
  readonly control: AbortController;
  expected: "event" | "aborted" | "closed";
  sequence: number;
  missed: number;
}

class Model {
  readonly capacity: number;
  readonly queue: EventQueue<number>;
  pushed = 0;
  waitCursor = 1;
  readers: Reader[] = [];
  open: OpenWait[] = [];
  all: OpenWait[] = [];

  constructor(capacity: number) {
    this.capacity = capacity;
    this.queue = new EventQueue({ capacity });
  }

  oldest(): number {
    return Math.max(1, this.pushed - this.capacity + 1);
  }

  serve(): void {
    while (this.open.length > 0 && this.waitCursor <= this.pushed) {
      const wait = this.open.shift()!;
      wait.expected = "event";
      wait.sequence = Math.max(this.waitCursor, this.oldest());
      wait.missed = wait.sequence - this.waitCursor;
      this.waitCursor = wait.sequence + 1;
    }
  }

  async run(action: Step): Promise<void> {
    if (action.do === "push") {
      this.pushed += 1;
      this.queue.push(this.pushed * 10);
      this.serve();
    } else if (action.do === "wait") {
      const control = new AbortController();
      const result = this.queue.wait(undefined, control.signal);
      const wait: OpenWait = { result, control, expected: "closed", sequence: 0, missed: 0 };
      this.open.push(wait);
      this.all.push(wait);
      this.serve();
    } else if (action.do === "abort") {
      const wait = this.open.pop();
      if (wait !== undefined) wait.expected = "aborted";
      wait?.control.abort();
    } else if (action.do === "subscribe") {
      const cursor = Math.max(1, this.pushed + 1 - action.back);
      this.readers.push({ follower: this.queue.subscribe({ fromSequence: cursor }), cursor });
    } else {
      await this.read(this.readers[action.reader % Math.max(1, this.readers.length)]);
    }
  }

  async read(reader: Reader | undefined): Promise<void> {
    if (reader === undefined || reader.cursor > this.pushed) return;
    const { value } = await reader.follower.next();
    const sequence = Math.max(reader.cursor, this.oldest());
    assert.is(value?.record.sequence, sequence);
    assert.is(value?.record.event, sequence * 10);
    assert.is(value?.missed, sequence - reader.cursor);
    reader.cursor = sequence + 1;
  }

  async finish(): Promise<void> {
    this.queue.close();
    for (const wait of this.all) {
      const result = await wait.result;
      assert.is(result.kind, wait.expected);
      if (result.kind !== "event") continue;
      assert.is(result.record.sequence, wait.sequence);
      assert.is(result.record.event, wait.sequence * 10);
      assert.is(result.missed, wait.missed);
    }
    for (const reader of this.readers) {
      while (reader.cursor <= this.pushed) await this.read(reader);
      assert.is((await reader.follower.next()).done, true);
    }
  }
}

test("waits and followers agree with the model", async () => {
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 8 }),
    fc.array(step, { maxLength: 80 }),
    async (capacity, steps) => {
      const model = new Model(capacity);
      for (const action of steps) await model.run(action);
      await model.finish();
    },
  );
  await fc.assert(property, { numRuns: 300 });
});

test.run();
