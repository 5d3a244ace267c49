import { test } from "uvu";
import * as assert from "uvu/assert";
import { isUsers } from "../dist/host-report.js";

test("a user's daemon is recognised by its socket", () => {
  const environment = { XDG_RUNTIME_DIR: "/run/user/1000" };
  const users = "/run/user/1000/blksnap/blksnapd.sock";
  assert.ok(isUsers(users, environment, false));
  assert.not.ok(isUsers(users, environment, true));
  assert.not.ok(isUsers("/run/blksnap/blksnapd.sock", environment, false));
});

test.run();
