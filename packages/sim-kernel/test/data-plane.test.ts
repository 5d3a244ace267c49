/** The real reactor pool of @blksnap/data-plane, with its reactors on the machine's one thread. */
import { ReactorPool, ReactorServer } from "@blksnap/data-plane";
import { reactorStarter, SimMachine } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";

const silent = { warn: () => undefined, error: () => undefined } as never;

function poolOf(machine: SimMachine, lost: unknown[]): ReactorPool {
  return new ReactorPool({
    reactors: 3,
    frontDepth: 8,
    imageDepth: 4,
    ioTimeoutMs: 1000,
    logger: silent,
    onNotice: () => undefined,
    onLost: (_reactor, error) => lost.push(error),
    startReactor: reactorStarter(machine, (setup) => new ReactorServer(setup)),
  });
}

test("requests are answered, errors keep their content, and all reactors end", async () => {
  const machine = new SimMachine({ seed: 1 });
  const lost: unknown[] = [];
  try {
    const pool = machine.start(() => poolOf(machine, lost));
    await machine.run(pool.ready());
    assert.is(pool.count, 3);
    const gone = pool.request(1, { type: "counters", tracker: 7 });
    assert.is(await machine.run(gone), null);
    const unknown = pool.request(2, { type: "hold", trackers: [7], deadlineMs: 100 });
    const said = await machine.run(unknown.catch((error: Error) => error.message));
    assert.match(String(said), "reactor 2 has no tracker 7");
    await machine.run(pool.stop());
    assert.equal(lost, []);
    assert.is(machine.rings.size, 0);
    assert.equal(machine.violations, []);
  } finally {
    await machine.close();
  }
});

test("a killed process leaves no ring, and the next one has its own reactors", async () => {
  const machine = new SimMachine({ seed: 1 });
  try {
    const pool = machine.start(() => poolOf(machine, []));
    await machine.run(pool.ready());
    const pending = pool.request(0, { type: "counters", tracker: 1 });
    let end = "none";
    pending.then(
      () => {
        end = "answered";
      },
      () => undefined,
    );
    machine.kill();
    await machine.settle();
    assert.is(machine.rings.size, 0, "a killed process leaves no ring");
    const next = machine.start(() => poolOf(machine, []));
    await machine.run(next.ready());
    await machine.run(next.stop());
    assert.is(end, "none");
  } finally {
    await machine.close();
  }
});

test.run();
