/** A target's file system becomes full in the middle: a tmpfs in its own mount namespace, which needs root. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { lacksRoot, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";

const VICTIM = join(import.meta.dirname, "disk-full-victim.js");

testUnless(test, lacksRoot())(
  "disk full half way: a named error, nothing looks complete, and with more space it succeeds",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "blksnap-full-"));
    const script = 'mount -t tmpfs -o size=6m blksnap-test "$1"; exec "$0" "$2" "$1"';
    const words = ["-m", "--propagation", "private", "sh", "-ec", script];
    const { stdout } = await promisify(execFile)("unshare", [
      ...words,
      ...[process.execPath, folder, VICTIM],
    ]);
    assert.is(stdout, "store\nraw\nraw by threads\nrestore\nstream\nqcow2\n");
    rmdirSync(folder);
  },
);

test.run();
