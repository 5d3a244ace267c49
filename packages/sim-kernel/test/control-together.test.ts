/** Commands of several devices at once, with the real code of @blksnap/ublk and a simulated driver. */
import { SimMachine } from "@blksnap/sim-kernel";
import { listDeviceIds, UblkControl } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addDisk, Server } from "./server.js";

async function withControl(
  code: (machine: SimMachine, control: UblkControl) => Promise<void>,
): Promise<void> {
  const machine = new SimMachine({ seed: 1 });
  try {
    let control: UblkControl | undefined;
    await machine.run(
      machine.start(async () => {
        control = await UblkControl.open();
      }),
    );
    await code(machine, control as UblkControl);
    assert.equal(machine.violations, []);
  } finally {
    await machine.close();
  }
}

const DEVICE = {
  id: -1,
  queues: 1,
  queueDepth: 4,
  maxIoBytes: 65_536,
  features: 0,
  serverFlags: 0,
  serverFlagsHigh: 0,
};

test("devices that are added at once choose their numbers one after the other", async () => {
  await withControl(async (machine, control) => {
    const next = (): number => Math.max(4, ...listDeviceIds()) + 1;
    const adding = [0, 1, 2].map(() => control.addDevice({ ...DEVICE, id: next }));
    const added = await machine.run(Promise.all(adding));
    assert.equal(
      added?.map(({ id }) => id),
      [5, 6, 7],
    );
  });
});

test("devices stop beside each other, four at a time", async () => {
  await withControl(async (machine, control) => {
    const ids = [0, 1, 2, 3, 4, 5, 6, 7];
    for (const _ of ids) await machine.run(control.addDevice(DEVICE));
    machine.ublk.fault = (name) => (name === "STOP_DEV" ? { delayMs: 100 } : undefined);
    const beganMs = machine.nowMs;
    await machine.run(Promise.all(ids.map((id) => control.stopDevice(id))));
    const tookMs = machine.nowMs - beganMs;
    assert.ok(tookMs >= 200 && tookMs < 300, `${tookMs} simulated ms`);
  });
});

test("a device is deleted before its server closes it, unless the kernel would wait for that", async () => {
  for (const isOld of [false, true]) {
    const machine = new SimMachine({ seed: 1 });
    try {
      addDisk(machine);
      const server = new Server(machine);
      await machine.run(machine.start(() => server.start()));
      const device = machine.ublk.devices.get(0);
      const seen: unknown[] = [];
      machine.ublk.fault = (name) => {
        if (name.startsWith("DEL_DEV")) seen.push([name, device?.isUnused]);
        return isOld && name === "DEL_DEV_ASYNC" ? { errno: 95 } : undefined;
      };
      await machine.run(server.stop());
      assert.equal(seen, [["DEL_DEV_ASYNC", false], ...(isOld ? [["DEL_DEV", true]] : [])]);
      assert.is(device?.isUnused, true);
      assert.equal(machine.violations, []);
    } finally {
      await machine.close();
    }
  }
});

test.run();
