import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Driver } from "../../dist/index.js";
import { StateDirectory } from "../../dist/records/state-directory.js";

test("a driver does not start over recorded fronts of another kind", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-frontend-"));
  try {
    const stateDirectory = join(folder, "state");
    const state = new StateDirectory(stateDirectory);
    const record = { id: 1, device: "/dev/vg/a", identity: "block:1:2", front: 3, errorCode: 0 };
    state.writeRecord("tracker-1", record);
    state.close();
    const start = () =>
      Driver.start({
        logger: pino({ enabled: false }),
        stateDirectory,
        persistentDirectory: join(folder, "kept"),
        frontend: "nbd",
        reactors: 1,
      });
    const failure = await start().then(
      () => undefined,
      (error) => error,
    );
    assert.is(failure?.code, "FRONTEND_DIFFERS");
    assert.match(failure.message, "--frontend ublk");
    // Its lock is released.
    new StateDirectory(stateDirectory).close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
