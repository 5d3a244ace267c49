import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { ControlError } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startHarness } from "./harness.js";

const run = promisify(execFile);

test("the example of the README runs", async () => {
  const { socketPath, stop } = await startHarness();
  const example = join(import.meta.dirname, "../examples/snapshot.mjs");
  const { stdout } = await run(process.execPath, [example, "/dev/loop0"], {
    env: { ...process.env, BLKSNAP_SOCKET: socketPath },
  });
  assert.match(stdout, /image of \/dev\/loop0: \/dev\/ublkb\d+/);
  await stop();
});

test("the example leaves no snapshot when the take fails, and shows its usage", async () => {
  const { driver, socketPath, stop } = await startHarness();
  driver.snapshotTake = () => Promise.reject(new ControlError("FREEZE_TIMEOUT", "no rest"));
  const example = join(import.meta.dirname, "../examples/snapshot.mjs");
  const failure = (...devices: string[]) =>
    run(process.execPath, [example, ...devices], {
      env: { ...process.env, BLKSNAP_SOCKET: socketPath },
    }).then(
      () => ({ code: 0, stderr: "" }),
      ({ code, stderr }) => ({ code, stderr }),
    );
  const { code, stderr } = await failure("/dev/loop0");
  assert.is(code, 1);
  assert.match(stderr, /^FREEZE_TIMEOUT: no rest\. /);
  assert.is(driver.snapshots.size, 0);
  assert.equal(await failure(), { code: 2, stderr: "usage: node snapshot.mjs DEVICE...\n" });
  await stop();
});

test.run();
