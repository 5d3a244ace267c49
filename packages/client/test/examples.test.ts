import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
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

test.run();
