import { test } from "uvu";
import * as assert from "uvu/assert";
import { startHarness } from "./harness.js";

test("files are not looked for in an image that is an NBD export", async () => {
  const harness = await startHarness();
  await harness.driver.attach("/dev/loop0");
  const snapshotInfo = harness.driver.snapshotInfo.bind(harness.driver);
  const image = "nbd+unix:///image/loop0?socket=/run/blksnap/nbd.sock";
  harness.driver.snapshotInfo = async (device) => ({ ...(await snapshotInfo(device)), image });
  const { status, err } = await harness.run("diff", "-d", "/dev/loop0", "--since", "0", "--files");
  assert.is(status, 1);
  assert.match(err, `the image is an NBD export: ${image}. `);
  assert.match(err, "[FILES_NOT_NAMED]");
  await harness.stop();
});

test.run();
