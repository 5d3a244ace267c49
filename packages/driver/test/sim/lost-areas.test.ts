/** A front that continues without its area, while the disk of the journals removes nothing: no boot shows its image. */
import fs from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DISK_BYTES, LINKED_STORE, linkStore, STATE_DIRECTORY } from "./settings.js";
import { keepLastingNames, within } from "./tracking-world.js";

const EIO = 5;
const AT = 65_536;

test("what is written without copies after a kill is on no image after a power cut", () =>
  within(async (world) => {
    world.machine.addDisk("sds", { sizeBytes: 8 * DISK_BYTES });
    linkStore(world.machine);
    await world.attach();
    await world.write();
    // A store that nothing removes.
    await world.take(true, LINKED_STORE);
    world.kill();
    await world.machine.settle();
    const removeAgain = keepLastingNames(world, EIO);
    const starting = world.machine.start(() => {
      const map = fs.readdirSync(STATE_DIRECTORY).find((name) => name.startsWith("area-"));
      assert.ok(map !== undefined, "the area has a map");
      fs.unlinkSync(join(STATE_DIRECTORY, map));
    });
    void starting;
    world.machine.kill();
    await world.machine.settle();
    await world.start();
    const [front] = (await world.run(world.driver.status())).trackers;
    const user = world.machine.user(front?.front as string);
    await world.machine.run(user.write(AT, new Uint8Array(4096).fill(9), true));
    user.close();
    world.machine.cut();
    await world.machine.settle();
    removeAgain();
    await world.start();
    const byte = await world.imageByte().catch(() => undefined);
    assert.is.not(byte, 9);
  }));

test.run();
