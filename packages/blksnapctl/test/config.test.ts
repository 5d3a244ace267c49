/** config check: the report of the daemon's program, as text and JSON. */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ConfigReport } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { program } from "./harness.js";

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnapctl-config-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** A daemon's program that prints this, has the status of an error in it, and records its arguments. */
function check(output: string, ...words: string[]) {
  const status = output.includes('"error"') ? 2 : 0;
  const path = join(folder, "blksnapd");
  const said = `cat <<'END'\n${output}\nEND\nexit ${status}\n`;
  writeFileSync(path, `#!/bin/sh\necho "$@" > ${folder}/called\n${said}`);
  chmodSync(path, 0o755);
  return spawnSync(process.execPath, [program, "config", "check", ...words], {
    cwd: folder,
    env: { PATH: `${folder}:/usr/bin:/bin` },
    encoding: "utf8",
  });
}

const fine: ConfigReport = {
  version: "0.1.0",
  path: "/etc/c.toml",
  files: ["/etc/c.toml"],
  starts: true,
  devices: ["/dev/vg/a"],
  problems: [],
};
const line = { path: "/etc/c.toml", line: 3, what: "it is wrong", hint: "Mend it" };

test("errors end with status 1, warnings do not; each is one line with its place", () => {
  const good = check(JSON.stringify(fine));
  assert.equal(
    [good.status, good.stdout],
    [0, "A daemon can start with it; devices to attach: 1\n"],
  );
  const warned = check(JSON.stringify({ ...fine, problems: [{ ...line, severity: "warning" }] }));
  assert.is(warned.status, 0);
  assert.match(warned.stdout, /^warning {2}\/etc\/c\.toml:3: it is wrong\. Mend it\n/);
  const problems = [{ ...line, line: null, severity: "error" }];
  const partly = check(JSON.stringify({ ...fine, problems }));
  assert.is(partly.status, 1);
  assert.match(partly.stdout, "A daemon starts with it, but does not attach all devices: 1 to");
  const bad = check(JSON.stringify({ ...fine, starts: false, problems }));
  assert.is(bad.status, 1);
  assert.equal(bad.stdout.split("\n"), [
    "error    /etc/c.toml: it is wrong. Mend it",
    "A daemon does not start with it: 1 to correct",
    "",
  ]);
  const json = check(JSON.stringify({ ...fine, problems }), "--json");
  assert.equal([json.status, JSON.parse(json.stdout).problems], [1, problems]);
});

test("without a file, defaults are in force", () => {
  const { status, stdout } = check(JSON.stringify({ ...fine, files: [], devices: [] }));
  assert.equal([status, stdout], [0, "/etc/c.toml does not exist: defaults are in force\n"]);
});

test("a file is passed on as an absolute path", () => {
  check(JSON.stringify(fine), "--file", "new.toml");
  const called = spawnSync("cat", [join(folder, "called")], { encoding: "utf8" }).stdout;
  assert.is(called, `--check-config --config ${join(folder, "new.toml")}\n`);
});

test("a program with invalid output is a named failure", () => {
  const { status, stderr } = check("no JSON");
  assert.is(status, 1);
  assert.match(stderr, "printed no JSON");
  assert.match(stderr, "[CONFIG_CHECK_FAILED]");
});

test.run();
