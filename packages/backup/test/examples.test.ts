/** The README's code and the example run unchanged. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportToStore } from "../dist/export-store.js";
import { BackupStore } from "../dist/store.js";
import { FakeMachine, MIB } from "./fake-machine.js";

const PACKAGE = join(import.meta.dirname, "..");

test("the README's code that needs no device runs", () => {
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const code = /^```js\n([\s\S]*?)^```$/m.exec(readme)![1]!;
  // It leaves its store in the folder of temporary files.
  const TMPDIR = mkdtempSync(join(tmpdir(), "blksnap-readme-"));
  try {
    const env = { ...process.env, TMPDIR };
    const options = { cwd: PACKAGE, encoding: "utf8", env } as const;
    const out = execFileSync(process.execPath, ["--input-type=module", "--eval", code], options);
    assert.match(out, "removed_chunks: 0");
  } finally {
    rmSync(TMPDIR, { recursive: true });
  }
});

test("the example lists and checks a folder", async () => {
  const machine = new FakeMachine(4 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("backups"));
  machine.write(0, Buffer.alloc(100, 1));
  const { client, device } = machine;
  const more = { stores: ["/var/tmp"], limitBytes: MIB, wanted: { kind: "full" } as const };
  const { id } = await exportToStore(store, { client, device, ...more });
  const path = join(PACKAGE, "examples/look-after.mjs");
  const out = execFileSync(process.execPath, [path, store.path], { encoding: "utf8" });
  assert.match(out, `${id} /dev/vg/data`);
  assert.match(out, "1 chunks, 0 damaged");
  machine.remove();
});

test.run();
