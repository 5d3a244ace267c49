import { test } from "uvu";
import * as assert from "uvu/assert";
import { failureOf, startHarness } from "./harness.js";

test("an upgrade returns when the next daemon answers, with the old daemon and the pause", async () => {
  const { client, daemon, stop } = await startHarness();
  const { pid } = (await client.status()).daemon;
  assert.equal(await client.daemonUpgrade(), {
    from: { pid, version: "0.1.0" },
    to: { pid: pid + 1, version: "0.2.0" },
    started_by: "supervisor",
    pause_ms: 40,
  });
  assert.equal(daemon.endings, ["upgrade"]);
  await stop();
});

test("without a time limit an upgrade and a stop wait for as long as they take", async () => {
  const { daemon, socketPath, stop } = await startHarness();
  const { BlksnapClient } = await import("../dist/index.js");
  const patient = new BlksnapClient({ socketPath, timeoutMs: 0 });
  await patient.daemonUpgrade({ timeoutMs: 0 });
  await patient.daemonStop();
  assert.equal(daemon.endings, ["upgrade", "detach"]);
  await stop();
});

test("an upgrade fails if a daemon other than the promised one serves", async () => {
  const { client, driver, stop } = await startHarness();
  const { status } = driver;
  driver.status = async () => {
    const found = await status.call(driver);
    const isNext = found.daemon.version === "0.2.0";
    return isNext ? { ...found, daemon: { ...found.daemon, pid: 1, version: "0.1.0" } } : found;
  };
  const error = await failureOf(client.daemonUpgrade());
  assert.is(error.code, "UPGRADE_FAILED");
  assert.match(error.message, /version 0\.2\.0 ended; daemon 1 of version 0\.1\.0 continues/);
  await stop();
});

test("stop is refused while devices are in use; with keep they are named", async () => {
  const { client, daemon, stop } = await startHarness();
  await client.attach("/dev/loop0");
  const error = await failureOf(client.daemonStop());
  assert.equal([error.code, error.errnoName], ["DAEMON_IN_USE", "EBUSY"]);
  assert.equal((await client.daemonStop({ keep: true })).kept, ["/dev/ublkb0"]);
  assert.equal(daemon.endings, ["keep"]);
  assert.is((await failureOf(client.status())).code, "DAEMON_NOT_RUNNING");
  await stop();
});

test.run();
