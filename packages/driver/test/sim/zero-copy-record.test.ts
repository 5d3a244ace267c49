/** What programs from before zero copy find of a front that has it. */
import fs from "node:fs";
import { join } from "node:path";
import { SimMachine } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startDriver } from "./load.js";
import { DISK_BYTES, kernelOf, STATE_DIRECTORY } from "./settings.js";

/** The headers of a tracker's record and of its copy after the attach. */
async function headers(seed: number): Promise<{ zeroCopy: boolean; versions: string[] }> {
  const machine = new SimMachine(kernelOf(seed));
  try {
    machine.addDisk("sda", { sizeBytes: DISK_BYTES });
    const run = <Value>(work: Promise<Value>) => machine.run(work) as Promise<Value>;
    const driver = await run(startDriver(machine, () => undefined));
    await run(driver.attach("/dev/sda"));
    const { trackers } = await run(driver.status());
    const names = fs.readdirSync(STATE_DIRECTORY).filter((name) => /^tracker-/.test(name));
    const texts = names.map((name) => fs.readFileSync(join(STATE_DIRECTORY, name), "utf8"));
    const versions = texts.map((text) => text.split(" ", 2).join(" "));
    return { zeroCopy: trackers[0]?.zero_copy === true, versions };
  } finally {
    await machine.close();
  }
}

test("the record of a front with zero copy has another version, that of others is unchanged", async () => {
  const of = "blksnap-record";
  assert.equal(await headers(1), { zeroCopy: true, versions: [`${of} 2`, `${of} 2`] });
  assert.equal(await headers(2), { zeroCopy: false, versions: [`${of} 1`, `${of} 1`] });
});

test.run();
