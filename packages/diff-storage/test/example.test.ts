import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { withDirectory } from "./support.js";

test("the example prints what the README shows", () =>
  withDirectory(async (directory) => {
    const path = join(import.meta.dirname, "..", "examples", "save.mjs");
    const output = execFileSync(process.execPath, [path, directory], { encoding: "utf8" });
    assert.equal(output.trimEnd().split("\n"), [
      "memory: 8 slots",
      "directory: 16 slots",
      "used 6 of 6 MiB, 0 bytes free",
      "event: no_space",
      "closed: true",
    ]);
  }));

test.run();
