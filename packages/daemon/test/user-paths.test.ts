import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseOptions } from "../dist/options.js";
import { userDefaults, withUserConfig, withUserPaths } from "../dist/user-paths.js";

const HOME = { XDG_RUNTIME_DIR: "/r", XDG_CONFIG_HOME: "/c", XDG_STATE_HOME: "/s" };
const nbd = (...more: string[]) => parseOptions(["--frontend=nbd", ...more]);

test("a user's daemon keeps its files in the user's folders", () => {
  const given = withUserPaths(nbd(), HOME, false);
  assert.equal(
    [given["state-dir"], given["config"]],
    ["/r/blksnap/state", "/c/blksnap/blksnap.toml"],
  );
  const defaults = { "persistent-dir": "/s/blksnap", socket: "/r/blksnap/blksnapd.sock" };
  assert.equal(userDefaults(given, HOME, false), defaults);
  const usual = withUserPaths(nbd(), { XDG_RUNTIME_DIR: "/r", XDG_CONFIG_HOME: "" }, false);
  assert.is(usual["config"], `${homedir()}/.config/blksnap/blksnap.toml`);
});

test("a user's file of settings is checked where there is one", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-user-"));
  const environment = { XDG_CONFIG_HOME: folder };
  const none = parseOptions(["--check-config"]);
  assert.equal(withUserConfig(none, environment, false), none);
  mkdirSync(join(folder, "blksnap"));
  const path = join(folder, "blksnap", "blksnap.toml");
  writeFileSync(path, "");
  assert.is(withUserConfig(none, environment, false)["config"], path);
  assert.equal(withUserConfig(none, environment, true), none);
  const named = parseOptions(["--check-config", "--config=/x"]);
  assert.equal(withUserConfig(named, environment, false), named);
  rmSync(folder, { recursive: true });
});

test("explicit paths take precedence, and root uses the machine's folders", () => {
  assert.is(withUserPaths(nbd("--state-dir=/x"), HOME, false)["state-dir"], "/x");
  assert.equal(withUserPaths(nbd(), HOME, true), nbd());
  assert.equal(userDefaults(nbd(), HOME, true), {});
  assert.equal(withUserPaths(parseOptions([]), HOME, false), parseOptions([]));
});

test("without such a folder a user has to name the state directory and the socket", () => {
  assert.throws(() => withUserPaths(nbd(), {}, false), /XDG_RUNTIME_DIR is not set/);
  assert.throws(() => withUserPaths(nbd("--state-dir=/x"), {}, false), /--socket/);
  const given = nbd("--state-dir=/x", "--socket=/y");
  assert.is(withUserPaths(given, {}, false)["state-dir"], "/x");
  assert.is(userDefaults(given, {}, false)["socket"], undefined);
});

test.run();
