import { runForLines } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

async function runScript(
  script: string,
): Promise<[lines: string[], status: number | null, said: string]> {
  const lines: string[] = [];
  const { failure, status, said } = await runForLines("sh", ["-c", script], (line) => {
    lines.push(line);
  });
  assert.is(failure, undefined);
  return [lines, status, said];
}

test("lines come one by one, then the status and standard error", async () => {
  assert.equal(await runScript("echo one; echo two; echo bad >&2; exit 3"), [
    ["one", "two"],
    3,
    "bad\n",
  ]);
  assert.equal(await runScript("kill -9 $$"), [[], null, ""]);
});

test("it has PATH, with the folders of the system's programs, and the locale C", async () => {
  const [[path, locale, home]] = await runScript('echo "$PATH"; echo "$LC_ALL"; echo "$HOME"');
  assert.match(path!, /:\/usr\/sbin:/);
  assert.equal([locale, home], ["C", ""]);
});

test("a missing program is a failure, not an exception", async () => {
  const { failure, status } = await runForLines("no-such-program", [], () => undefined);
  assert.match(failure!.message, /ENOENT/);
  assert.is(status, null);
});

test.run();
