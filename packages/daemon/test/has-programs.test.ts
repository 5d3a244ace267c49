/** When blksnapd.service is started, skipped, and retried. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";

const SCRIPT = join(import.meta.dirname, "../libexec/has-programs");
const PROGRAMS = ["/opt/node", "/opt/lib/blksnapd.mjs"] as const;
const test = suite("has-programs");

let root: string;
test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "blksnap-programs-"));
  mkdirSync(join(root, "opt/lib"), { recursive: true });
  for (const path of PROGRAMS) writeFileSync(join(root, path), "");
});
test.after.each(() => rmSync(root, { recursive: true }));

const environment = (tries: number) => ({
  PATH: process.env["PATH"],
  JOURNAL_STREAM: "8:1",
  BLKSNAP_UNITS_ROOT: root,
  BLKSNAP_UNITS_TRIES: String(tries),
});

function run(tries = 0): { status: number | null; stderr: string } {
  const env = environment(tries);
  return spawnSync("sh", [SCRIPT, ...PROGRAMS], { env, encoding: "utf8" });
}

function addDevice(kind: "fronts" | "images", isThere = true): void {
  mkdirSync(join(root, "run/blksnap-udev", kind), { recursive: true });
  writeFileSync(join(root, "run/blksnap-udev", kind, "ublkb3"), "");
  if (isThere) mkdirSync(join(root, "sys/class/block/ublkb3"), { recursive: true });
}

test("with all programs present the daemon starts silently", () => {
  addDevice("fronts");
  const { status, stderr } = run();
  assert.equal([status, stderr], [0, ""]);
});

test("without one of them it is skipped, with an error in the journal", () => {
  // A device of an earlier boot does not count.
  addDevice("images", false);
  for (const path of PROGRAMS) {
    rmSync(join(root, path));
    const { status, stderr } = run();
    // For systemd, 1 to 254 skip a unit, and 255 is a failure.
    assert.is(status, 1);
    assert.match(stderr, new RegExp(`^<3>blksnapd is not started: ${path} is gone\\. .*\\n$`));
    writeFileSync(join(root, path), "");
  }
});

test("while users of a front or an image wait it fails, so that systemd retries it", () => {
  rmSync(join(root, PROGRAMS[1]));
  for (const kind of ["fronts", "images"] as const) {
    addDevice(kind);
    const { status, stderr } = run();
    assert.is(status, 255);
    assert.match(stderr, "\n<3>users of /dev/ublkb3 wait for it\n");
    rmSync(join(root, "run"), { recursive: true });
  }
});

test("and starts as soon as the program is back", async () => {
  rmSync(join(root, PROGRAMS[1]));
  addDevice("fronts");
  const env = environment(300);
  const child = spawn("sh", [SCRIPT, ...PROGRAMS], { env, stdio: ["ignore", "ignore", "pipe"] });
  // It waits by now.
  let said = "";
  for await (const text of child.stderr.setEncoding("utf8")) {
    said += text;
    if (said.includes("wait for it")) break;
  }
  const ended = once(child, "exit");
  writeFileSync(join(root, PROGRAMS[1]), "");
  assert.is((await ended)[0], 0);
});

test.run();
