/** Images that mount refuses without examining a device. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startHarness } from "./harness.js";

const URI = "nbd+unix:///image/0/disk?socket=/run/nbd.sock";

test("an image that is an NBD export is refused, with the command that makes it a device", async () => {
  const harness = await startHarness();
  const { driver, dir } = harness;
  const ask = async (...words: string[]) => {
    const { error } = JSON.parse((await harness.run("mount", ...words, "--json")).out);
    assert.is(error.name, "MOUNT_FAILED");
    assert.match(error.message, `${URI} is an NBD export`);
    assert.match(error.hint ?? error.message, "nbd-client -unix");
  };
  await ask(URI, dir);
  const id = await harness.ok("snapshot_create", "-d", "/dev/loop0", "-f", "memory:", "-l", "1G");
  await harness.ok("snapshot_take", "--id", id.trim());
  const snapshotInfo = driver.snapshotInfo.bind(driver);
  driver.snapshotInfo = async (device) => ({ ...(await snapshotInfo(device)), image: URI });
  await ask("--device", "/dev/loop0", dir);
  await harness.stop();
});

test.run();
