/** Writers wait during a take: calls that may hang are made before. */
import type { Medium } from "@blksnap/sim-kernel";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { faults } from "./load.js";
import { DISK_BYTES } from "./settings.js";
import { within } from "./tracking-world.js";

const ORIGINAL = "/mnt/original";
const STORE = "/var/tmp";
const BYTES = 4096;
const WRITE_MS = 1000;

for (const hung of ["open", "statfs"]) {
  test(`an original whose ${hung} hangs fails a take before its writers wait`, () =>
    within(async (world) => {
      const { machine } = world;
      machine.files.writeFile(ORIGINAL, new Uint8Array(DISK_BYTES), "w", 0o600);
      await world.run(world.driver.attach(ORIGINAL, { persistent: true }));
      const parameters = { devices: [ORIGINAL], stores: [STORE], limitBytes: 2 ** 22 };
      const { id } = await world.run(
        world.driver.snapshotCreate({ ...parameters, persistent: true }),
      );
      const { trackers } = await world.run(world.driver.status());
      const user = machine.user(trackers[0]?.front as string);
      const answers: (() => void)[] = [];
      const call = (name: string, make: () => void) => {
        if (name === hung) answers.push(make);
        else make();
      };
      const mediumAt = machine.tree.mediumAt.bind(machine.tree);
      faults.onPoint = (point) => {
        if (point !== "take.areas-recorded") return;
        machine.tree.mediumAt = (name) =>
          name.startsWith("/proc/self/fd/") ? ({ call } as Medium) : mediumAt(name);
      };
      let isOver = false;
      const taking = world.driver.snapshotTake(id).then(String, String);
      void taking.then(() => {
        isOver = true;
      });
      while (!isOver) {
        const beganMs = machine.nowMs;
        await world.run(user.write(0, new Uint8Array(BYTES).fill(1), false));
        assert.ok(machine.nowMs - beganMs < WRITE_MS, `a write took ${machine.nowMs - beganMs} ms`);
        await machine.sleep(1);
      }
      faults.onPoint = () => undefined;
      machine.tree.mediumAt = mediumAt;
      for (const make of answers) make();
      assert.match(await taking, `${ORIGINAL} has not answered the open in`);
      await world.run(world.driver.snapshotTake(id));
      user.close();
    }));
}

test.run();
