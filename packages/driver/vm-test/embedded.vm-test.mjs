/** The driver without its daemon: the example, as a user runs it. */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";

const example = fileURLToPath(new URL("../examples/embedded.mjs", import.meta.url));
const TIME_LIMIT_MS = 600_000;

test("the example reads old data from the image, and leaves nothing behind", () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [example], {
    encoding: "utf8",
    timeout: TIME_LIMIT_MS,
  });
  assert.is(status, 0, stderr);
  assert.is(stdout, "front: after the take  \nimage: before the take \n");
  assert.match(stderr, /^writers waited for \d+ us\n$/);
  assert.equal(
    readdirSync("/dev").filter((name) => /^ublk[bc]\d/.test(name)),
    [],
  );
  assert.equal(
    readdirSync(tmpdir()).filter((name) => name.startsWith("blksnap-example-")),
    [],
  );
});

test.run();
