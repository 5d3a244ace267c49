import { Dice } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { OperationLocks } from "../../dist/operations/operation-locks.js";

function locks() {
  return new OperationLocks({
    busy: (what, holder) => new Error(`${what} waited for ${holder.what}`),
    aborted: (what) => new Error(`no caller waits for ${what}`),
    closed: (what) => new Error(`${what} is not begun`),
  });
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** An operation that the test ends. */
function held() {
  let end: () => void = () => undefined;
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { end, operation: () => over };
}

test("random schedules: no two operations with a common name overlap, all run in order, all end", async () => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  const replay = `replay with SEED=${seed}`;
  const dice = new Dice(seed);
  const names = ["a", "b", "c", "d", "e"];
  for (let round = 0; round < 200; round++) {
    const all = locks();
    const busy = new Set<string>();
    const order = new Map<string, number[]>(names.map((name) => [name, []]));
    const works: Promise<unknown>[] = [];
    for (let number = 0; number < 30; number++) {
      const own = names.filter(() => dice.below(3) === 0);
      const fails = dice.below(5) === 0;
      const turns = dice.below(4);
      const work = all.run(own, { what: `${number}` }, async () => {
        for (const name of own) {
          assert.not.ok(busy.has(name), `two operations on ${name}; ${replay}`);
          busy.add(name);
          order.get(name)?.push(number);
        }
        for (let i = 0; i < turns; i++) await turn();
        for (const name of own) busy.delete(name);
        if (fails) throw new Error("as planned");
      });
      works.push(work);
      if (dice.below(4) === 0) await turn();
    }
    const results = await Promise.allSettled(works);
    for (const result of results) {
      if (result.status === "rejected") assert.is(result.reason.message, "as planned");
    }
    for (const numbers of order.values()) {
      assert.equal(
        numbers,
        [...numbers].sort((a, b) => a - b),
        replay,
      );
    }
    await all.idle();
    assert.equal(all.running, []);
  }
});

test("an operation that hangs delays only those with a common name", async () => {
  const all = locks();
  const hung = held();
  const done: string[] = [];
  const hanging = all.run(["device 1"], { what: "detach of 1" }, hung.operation);
  await all.run(["device 2"], { what: "attach of 2" }, async () => done.push("device 2"));
  await all.run(["snapshot 3"], { what: "take of 3" }, async () => done.push("snapshot 3"));
  const both = all.run(["device 1", "device 2"], { what: "create", waitMs: 1 }, async () => {
    done.push("both");
  });
  const behind = all.run(["device 2"], { what: "detach of 2" }, async () => done.push("behind"));
  assert.is(await both.catch((error) => error.message), "create waited for detach of 1");
  // It has given up, so that nothing waits through it for the operation that hangs.
  await behind;
  assert.equal(done, ["device 2", "snapshot 3", "behind"]);
  assert.equal(
    all.running.map(({ what }) => what),
    ["detach of 1"],
  );
  hung.end();
  await hanging;
  await all.idle();
});

test("after close, running operations continue, waiting ones are cancelled, only the end may begin", async () => {
  const all = locks();
  const first = held();
  const done: string[] = [];
  const running = all.run(["a"], { what: "first" }, first.operation);
  const waiting = all.run(["a"], { what: "second" }, async () => done.push("second"));
  await turn();
  all.close();
  const refused = all.run(["b"], { what: "third" }, async () => done.push("third"));
  const last = all.run(["a", "b"], { what: "last", atEnd: true }, async () => done.push("last"));
  assert.match(await waiting.catch((error) => error.message), "not begun");
  assert.is(await refused.catch((error) => error.message), "third is not begun");
  assert.equal(done, []);
  first.end();
  await Promise.all([running, last]);
  assert.equal(done, ["last"]);
});

test("an operation whose caller leaves while it waits does not begin", async () => {
  const all = locks();
  const first = held();
  const running = all.run(["a"], { what: "first" }, first.operation);
  const gone = new AbortController();
  const options = { what: "second", signal: gone.signal };
  const waiting = all.run(["a"], options, async (): Promise<string> => {
    assert.unreachable("no caller waits for it");
    return "";
  });
  await turn();
  gone.abort();
  assert.match(await waiting.catch((error) => `${error.message}`), "no caller waits");
  first.end();
  await running;
  await all.idle();
});

test.run();
