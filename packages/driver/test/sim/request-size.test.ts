/** The largest request of a new front. */
import { SimMachine } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { settingsOf } from "../../dist/settings.js";
import { startDriver } from "./load.js";
import { DISK_BYTES, driverOptions, kernelOf } from "./settings.js";

const KIB = 1024;
const nothing = (): void => undefined;
/** The simulation's own option is a short one. */
const byDefault = { maxIoBytes: undefined } as unknown as { maxIoBytes: number };

test("without --max-io it is longer with zero copy, which needs no buffers", () => {
  const { maxIoBytes: _, ...options } = driverOptions(nothing);
  const sizes = ({ maxIoBytes, zeroCopyIoBytes }: ReturnType<typeof settingsOf>): number[] => [
    maxIoBytes / KIB,
    zeroCopyIoBytes / KIB,
  ];
  assert.equal(sizes(settingsOf(options)), [512, 1024]);
  assert.equal(sizes(settingsOf({ ...options, maxIoBytes: 64 * KIB })), [64, 64]);
});

for (const [seed, words, sizeKib] of [
  [1, "with zero copy", 1024],
  [2, "without zero copy", 512],
] as const) {
  test(`a front ${words} takes requests of ${sizeKib} KiB`, async () => {
    const machine = new SimMachine(kernelOf(seed));
    try {
      machine.addDisk("sda", { sizeBytes: DISK_BYTES });
      const run = <Value>(work: Promise<Value>) => machine.run(work) as Promise<Value>;
      const driver = await run(startDriver(machine, nothing, undefined, byDefault));
      await run(driver.attach("/dev/sda"));
      const [device] = machine.ublk.devices.values();
      assert.is((device?.info.maxIoBytes ?? 0) / KIB, sizeKib);
    } finally {
      await machine.close();
    }
  });
}

test.run();
