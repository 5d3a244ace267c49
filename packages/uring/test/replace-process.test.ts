import { spawnSync } from "node:child_process";
import { test } from "uvu";
import * as assert from "uvu/assert";

/** Runs a script with the package at hand. */
function runScript(script: string, env: Record<string, string> = {}) {
  const words = ["--input-type=module", "-e", script];
  return spawnSync(process.execPath, words, {
    cwd: import.meta.dirname,
    env: { ...process.env, ...env },
    encoding: "utf8",
    timeout: 200_000,
  });
}

test("another program continues as the same process, with its environment and streams", () => {
  const { status, stdout, stderr } = runScript(
    `
    import { closeSync, openSync } from "node:fs";
    import { replaceProcess } from "@blksnap/uring";
    console.log(process.pid);
    const fd = openSync("/dev/null");
    process.env.AFTER = "set";
    const words = ["-c", 'echo $$ "$1" $BEFORE $AFTER; test -e /proc/self/fd/$2; exit $?', "sh"];
    replaceProcess("/bin/sh", [...words, "two words", String(fd)]);
    `,
    { BEFORE: "kept" },
  );
  const [before, after] = stdout.split("\n");
  assert.is(after, `${before} two words kept set`);
  assert.is(status, 1, "a descriptor was left open");
  assert.is(stderr, "");
});

test("descriptors that a service manager has passed are passed on, and no others", () => {
  const { stdout, stderr } = runScript(`
    import { replaceProcess } from "@blksnap/uring";
    const look = 'for fd in 3 4; do test -e /proc/self/fd/$fd && echo $fd; done; exit 0';
    replaceProcess("/bin/sh", ["-c", 'exec 3</dev/null 4</dev/null; exec "$@"', "sh"].concat(
      process.execPath, "--input-type=module", "-e",
      'import { replaceProcess } from "@blksnap/uring"; replaceProcess("/bin/sh", ["-c", ' + JSON.stringify(look) + '], 1);',
    ));
  `);
  assert.equal([stdout, stderr], ["3\n", ""]);
});

test("a program that does not exist is an error, and this one continues", () => {
  const { stdout } = runScript(`
    import { replaceProcess } from "@blksnap/uring";
    try {
      replaceProcess("/no/such/program", []);
    } catch (error) {
      console.log(error.code, error.message);
    }
  `);
  assert.match(stdout, /^SYSTEM_CALL_FAILED .*\/no\/such\/program.*ENOENT/);
});

test.run();
