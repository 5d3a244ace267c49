import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Harness, startHarness } from "./harness.js";

const FINE = [{ check: "kernel_version", state: "ok", what: "Linux 6.12" }];
const BROKEN = {
  check: "oom_score",
  state: "warning",
  what: "daemon 7 has an oom_score_adj of 0",
  why: "it may be chosen",
  hint: "Run as root",
};

let harness: Harness;
let bin: string;
const path = process.env["PATH"];

/** Puts a blksnapd with this output into $PATH, and records its arguments. */
function install(script: string): void {
  writeFileSync(join(bin, "blksnapd"), `#!/bin/sh\necho "$*" > ${bin}/words\n${script}\n`);
  chmodSync(join(bin, "blksnapd"), 0o755);
}

function report(checks: readonly object[], version = "0.1.0"): string {
  return `cat << 'EOT'\n${JSON.stringify({ version, checks })}\nEOT`;
}

test.before.each(async () => {
  harness = await startHarness();
  bin = mkdtempSync(join(tmpdir(), "blksnapd-"));
  process.env["PATH"] = `${bin}${delimiter}${path}`;
});
test.after.each(async () => {
  process.env["PATH"] = path;
  rmSync(bin, { recursive: true });
  await harness.stop();
});

test("a healthy host: a line per check, the daemon's included, and status 0", async () => {
  install(report(FINE));
  const out = await harness.ok("doctor");
  assert.equal(out.split("\n"), [
    "ok       kernel_version: Linux 6.12",
    `ok       control_api: the daemon answers at ${harness.socketPath}`,
    "ok       version: blksnapd 0.1.0",
    "ok       reactors: 1 reactor running",
    "",
  ]);
  const words = readFileSync(join(bin, "words"), "utf8");
  assert.is(words, `--doctor --socket ${harness.socketPath}\n`);
});

test("problems are shown last, with reason and advice, and give status 1", async () => {
  install(report([BROKEN]));
  const { status, out, err } = await harness.run("doctor", "--fix", "--state-dir", "/run/other");
  assert.equal([status, err], [1, ""]);
  const line =
    "warning  oom_score: daemon 7 has an oom_score_adj of 0; it may be chosen. Run as root\n";
  assert.ok(out.endsWith(`reactor running\n${line}`), out);
  assert.match(readFileSync(join(bin, "words"), "utf8"), "--state-dir /run/other --fix\n");
});

test("of several problems the worst are last; JSON keeps the order of the checks", async () => {
  const checks = [{ ...BROKEN, state: "error" }, BROKEN, ...FINE, { ...BROKEN, check: "last" }];
  install(report(checks));
  const lines = (await harness.run("doctor")).out.split("\n").slice(0, -1);
  const begins = lines.map((line) => line.split(":")[0]?.replace(/ +/, " "));
  assert.equal(begins.slice(-3), ["warning oom_score", "warning last", "error oom_score"]);
  assert.is(begins[0], "ok kernel_version");
  const { checks: found } = JSON.parse((await harness.run("doctor", "--json")).out);
  assert.equal(found.slice(0, checks.length), checks);
});

test("a fixed problem counts as healthy", async () => {
  const what = "removed /dev/ublkb3";
  install(report([{ check: "ublk_devices", state: "ok", what, fixed: true }]));
  assert.match(await harness.ok("doctor", "--fix"), `fixed    ublk_devices: ${what}\n`);
});

test("JSON has the checks of both, even if something is wrong", async () => {
  install(report([...FINE, BROKEN]));
  const { status, out } = await harness.run("doctor", "--json");
  assert.is(status, 1);
  const { checks } = JSON.parse(out);
  assert.equal(checks.slice(0, 2), [...FINE, BROKEN]);
  assert.is(checks.length, 5);
});

test("the daemon adds stalled reactors, lost blocks and an old version", async () => {
  install(report(FINE, "0.3.0"));
  await harness.driver.attach("/dev/loop0");
  await harness.driver.snapshotCreate({
    devices: ["/dev/loop0"],
    stores: ["/var/tmp"],
    limitBytes: 1 << 20,
  });
  const { status: ask } = harness.driver;
  harness.driver.status = async () => {
    const found = structuredClone(await ask.call(harness.driver));
    const [snapshot] = found.snapshots;
    return {
      ...found,
      reactors: [{ index: 2, devices: 1, stalled_ms: 4000, stalls: 1 }],
      snapshots: [
        {
          ...snapshot!,
          devices: [{ ...snapshot!.devices[0]!, error_code: -28, lost_bytes: 4096 }],
        },
      ],
    };
  };
  const { status, out } = await harness.run("doctor");
  assert.is(status, 1);
  assert.match(out, /^warning {2}version: version 0\.1\.0 runs, 0\.3\.0 is installed;/m);
  assert.match(out, /^error {4}reactors: reactor 2 has stalled for 4 s; .* kill -9 \d+: /m);
  assert.match(out, "devices: /dev/loop0: 4.0 KiB of the image are lost: No space left on device;");
});

test("a front that waits for its original is an error", async () => {
  install(report(FINE));
  harness.driver.waiting = [{ device: "/dev/sdb", front: "/dev/ublkb3", why: "no such device" }];
  const { status, out } = await harness.run("doctor");
  assert.is(status, 1);
  const line = "waiting_fronts: /dev/ublkb3 of /dev/sdb is not served yet; its users wait: no such";
  assert.match(out, line);
});

test("a volume that cannot be attached again is a warning", async () => {
  install(report(FINE));
  const volume = {
    device: "/dev/vg/a",
    node: "/dev/mapper/vg-a",
    since: "2026-01-02T03:04:05.000Z",
    given_up: false,
  };
  harness.driver.untracked = [{ ...volume, why: "LVM changes the volume group vg" }];
  const { out } = await harness.run("doctor");
  const why = "3 daemons have ended while attaching it";
  harness.driver.untracked = [{ ...volume, why, given_up: true }];
  const { out: givenUp } = await harness.run("doctor");
  assert.match(givenUp, new RegExp(`^error +devices: /dev/vg/a is not tracked .*; ${why}`, "m"));
  assert.match(givenUp, "NOT attached again automatically: blksnapctl attach --device /dev/vg/a");
  harness.driver.untracked = [];
  const line = "devices: /dev/vg/a is not tracked since 2026-01-02T03:04:05.000Z; LVM changes";
  assert.match(out, line);
  harness.driver.untracked = undefined as never;
  assert.not.match((await harness.run("doctor")).out, "not tracked");
  harness.driver.untracked = [];
});

test("a configuration that is not followed is a warning", async () => {
  install(report(FINE));
  const mistakes = ["/c:2: there is no key 'x' here. See blksnap.toml(5)."];
  harness.driver.configuration = { mistakes, missing: [] };
  const { out } = await harness.run("doctor");
  assert.match(
    out,
    /^warning {2}configuration: the configuration has mistakes, .*\/c:2: there is/m,
  );
});

test("without a daemon the host is still checked", async () => {
  install(report(FINE));
  await harness.server.close();
  assert.is(await harness.ok("doctor"), "ok       kernel_version: Linux 6.12\n");
});

test("a missing or failing program, or one with garbage output, is a named error", async () => {
  const failures: [script: string | undefined, message: RegExp][] = [
    [undefined, /can't run blksnapd --doctor: .*ENOENT/],
    ["echo 'blksnapd: no memory' >&2; exit 1", /--doctor: blksnapd: no memory/],
    ["echo hello", /printed no JSON/],
  ];
  for (const [script, message] of failures) {
    if (script !== undefined) install(script);
    else process.env["PATH"] = bin;
    const { status, out } = await harness.run("doctor", "--json");
    process.env["PATH"] = `${bin}${delimiter}${path}`;
    const { error } = JSON.parse(out);
    assert.equal([status, error.name], [1, "DOCTOR_FAILED"]);
    assert.match(error.message, message);
  }
});

test.run();
