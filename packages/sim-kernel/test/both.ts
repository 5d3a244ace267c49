/** Runs the same code on the real kernel and on the simulated one, and compares what it observes. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SimMachine } from "@blksnap/sim-kernel";
import * as assert from "uvu/assert";

/** Given to the code: a folder of its own, and a place for its observations. */
export interface Both {
  readonly folder: string;
  readonly saw: (what: string, value: unknown) => void;
}

export async function onBoth(code: (both: Both) => void | Promise<void>): Promise<void> {
  const real: [string, unknown][] = [];
  const folder = mkdtempSync(join(tmpdir(), "sim-kernel-"));
  try {
    await code({ folder, saw: (what, value) => real.push([what, value]) });
  } finally {
    rmSync(folder, { recursive: true });
  }
  const simulated: [string, unknown][] = [];
  await onMachine(async () => {
    await code({ folder: "/var/tmp", saw: (what, value) => simulated.push([what, value]) });
  });
  assert.ok(real.length > 0, "the code saw nothing");
  assert.equal(simulated, real);
}

/** Runs code as the program of a machine, to its end. */
export async function onMachine(code: (machine: SimMachine) => Promise<void>): Promise<void> {
  const machine = new SimMachine({ seed: 1 });
  try {
    await machine.run(machine.start(() => code(machine)));
    assert.equal(machine.violations, []);
  } finally {
    await machine.close();
  }
}

/** The error code of a failure, or the result of the call. */
export function outcome(call: () => unknown): unknown {
  try {
    return call();
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}
