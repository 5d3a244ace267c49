import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Harness, program, startHarness } from "./harness.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const d0 = "/dev/loop0";
const d1 = "/dev/loop1";
let harness: Harness;
test.before.each(async () => {
  harness = await startHarness();
});
test.after.each(() => harness.stop());

async function create(...more: string[]): Promise<string> {
  const out = await harness.ok("snapshot_create", "-d", d0, "-f", "/var/tmp", "-l", "1G", ...more);
  assert.match(out.trimEnd(), UUID);
  return out.trimEnd();
}

test("version prints four numbers", async () => {
  assert.is(await harness.ok("version"), "2.0.0.0\n");
  assert.is(JSON.parse(await harness.ok("version", "--json")).daemon, "0.1.0");
});

test("attach prints the module's line and the front, detach its own", async () => {
  const first = await harness.ok("attach", "--device", d0);
  assert.is(first, "Attached successfully\nfront=/dev/ublkb0\n");
  assert.is(await harness.ok("attach", "-d", d0), "Already was attached\nfront=/dev/ublkb0\n");
  assert.equal(JSON.parse(await harness.ok("attach", "-j", "-d", d0)), {
    device: d0,
    front: "/dev/ublkb0",
    already_attached: true,
    persistent: false,
    attach_kind: "front",
    live: null,
  });
  assert.is(await harness.ok("detach", "--device", "/dev/ublkb0"), "Detached successfully\n");
});

test("detach --forget says that a device which is not attached is forgotten", async () => {
  harness.driver.remembered.add("/dev/gone");
  const answer = "Forgotten: it was not attached\n";
  assert.is(await harness.ok("detach", "-d", "/dev/gone", "--forget"), answer);
  const again = await harness.run("detach", "-d", "/dev/gone", "--forget");
  assert.equal([again.status, /not attached/.test(again.err)], [1, true]);
});

test("attach prints the node of a live attach, and takes --live or --front", async () => {
  const live = await harness.ok("attach", "-d", d0, "--live");
  assert.is(live, `Attached successfully\nfront=/dev/ublkb0\nlive=${d0}\n`);
  await harness.ok("detach", "-d", d0);
  assert.match(await harness.ok("attach", "-d", d0, "--front"), /front=[^\n]*\n$/);
  await harness.ok("detach", "-d", d0);
  const both = await harness.run("attach", "-d", d0, "--live", "--front");
  assert.equal([both.status, /not both/.test(both.err)], [2, true]);
});

test("daemon upgrade prints both versions and pids, and the pause", async () => {
  const { pid } = process;
  const line = `0.1.0 (pid ${pid}) -> 0.2.0 (pid ${pid + 1}), pause 40 ms\n`;
  assert.is(await harness.ok("daemon", "upgrade"), line);
  const again = JSON.parse(await harness.ok("daemon", "upgrade", "-j"));
  assert.equal(again.from, { pid: pid + 1, version: "0.2.0" });
});

test("daemon stop is refused while something is in use, and --keep prints what waits", async () => {
  await harness.ok("attach", "--device", d0);
  const { status, err } = await harness.run("daemon", "stop");
  assert.is(status, 1);
  assert.match(err, /^blksnapctl: daemon: in use: \/dev\/ublkb0: mounted at \/mnt\. Unmount/);
  const stopped = await harness.ok("daemon", "stop", "--keep");
  assert.match(stopped, /^Stopped blksnapd, pid \d+\nkept=\/dev\/ublkb0\n$/);
  assert.is((await harness.run("status")).status, 1);
});

test("cbtinfo prints five lines", async () => {
  await harness.ok("attach", "-d", d0);
  const lines = (await harness.ok("cbtinfo", "-d", d0)).split("\n");
  assert.equal(lines.slice(0, 3), [
    "block_size=65536",
    "device_capacity=67108864",
    "block_count=1024",
  ]);
  assert.match(lines[3]!, /^generation_id=[0-9a-f-]{36}$/);
  assert.equal(lines.slice(4), ["changes_number=0", ""]);
  const json = JSON.parse(await harness.ok("cbtinfo", "-d", d0, "--json"));
  assert.is(json.generation_reason, "first_attach");
});

test("readcbtmap writes the map, a byte per block", async () => {
  await create();
  await harness.ok("markdirtyblock", "-d", d0, "-r", "0:1", "256:128");
  await harness.ok("snapshot_take", "-i", (await harness.ok("snapshot_collect")).split(" ")[0]!);
  const file = join(harness.dir, "map");
  assert.is(await harness.ok("readcbtmap", "-d", d0, "-f", file), "");
  const map = await readFile(file);
  assert.equal([map.length, ...map.subarray(0, 4)], [1024, 1, 0, 1, 0]);
  assert.is((await harness.ok("readcbtmap", "-d", d0, "-f", "-")).length, 1024);
  const json = JSON.parse(await harness.ok("readcbtmap", "-d", d0, "-f", file, "-j"));
  assert.is(json.block_count, 1024);
  const bad = await harness.run("readcbtmap", "-d", d0, "-f", join(harness.dir, "no", "map"), "-j");
  assert.equal([bad.status, JSON.parse(bad.out).error.name], [1, "OUTPUT_FAILED"]);
});

test("markdirtyblock marks ranges silently, and a file's extents with a line each", async () => {
  await harness.ok("attach", "-d", d0);
  assert.is(await harness.ok("markdirtyblock", "--device", d0, "--range", "0:8"), "");
  assert.is(
    await harness.ok("markdirtyblock", "--file", "/mnt/file"),
    "device path: '/dev/block/7:0'\nallocate range: ofs=2048 cnt=8\nallocate range: ofs=4096 cnt=128\n",
  );
  const json = JSON.parse(await harness.ok("markdirtyblock", "-d", d0, "-r", "0:8", "8:8", "-j"));
  assert.equal(json, { device: d0, ranges: 2 });
  assert.is(JSON.parse(await harness.ok("markdirtyblock", "-f", "/x", "-j")).ranges.length, 2);
});

test("a snapshot goes through the commands of a script for the module's tool", async () => {
  const id = await create();
  assert.is(await harness.ok("snapshot_add", `--id=${id}`, "-d", d1), "");
  assert.is(await harness.ok("snapshot_info", "-d", d0), "error_code=0\nimage=\n");
  const taken = await harness.run("snapshot_take", "-i", id);
  assert.is(taken.out, `device=${d0}\nimage=/dev/ublkb2\ndevice=${d1}\nimage=/dev/ublkb3\n`);
  // Standard error, which scripts ignore, names file systems that were not frozen.
  assert.match(taken.err, /^blksnapctl: \S+ \(vfat\): synced, not frozen \(EOPNOTSUPP\)\n$/);
  assert.is(await harness.ok("snapshot_info", "-d", d0), "error_code=0\nimage=/dev/ublkb2\n");
  assert.is(await harness.ok("snapshot_info", "-d", d0, "--field", "image"), "/dev/ublkb2\n");
  assert.is(await harness.ok("snapshot_info", "-d", d0, "-f", "front"), "/dev/ublkb0\n");
  assert.is(await harness.ok("snapshot_info", "-d", d0, "-f", "error_code"), "0\n");
  assert.is(
    await harness.ok("snapshot_info", "-d", d0, "-f", "image", "-j"),
    '{"image":"/dev/ublkb2"}\n',
  );
  assert.is(JSON.parse(await harness.ok("snapshot_info", "-d", d0, "-j")).snapshot_id, id);
  assert.is(await harness.ok("snapshot_collect"), `${id} \n\n`);
  assert.equal(JSON.parse(await harness.ok("snapshot_collect", "--json")), {
    snapshots: [{ id, taken: true, devices: [d0, d1] }],
  });
  const short = id.slice(0, 8).toUpperCase();
  assert.is(await harness.ok("snapshot_destroy", "-i", short), "Destroyed successfully\n");
  assert.is(await harness.ok("snapshot_collect"), "\n");
});

test("snapshot_create takes several devices and stores in order, and a policy", async () => {
  const id = await create(
    "--device",
    d1,
    "-f",
    "memory:",
    "relative",
    "--on-overflow",
    "block-writes=5",
  );
  const { options } = harness.driver.snapshots.get(id)!;
  assert.equal(options.devices, [d0, d1]);
  assert.equal(options.stores, ["/var/tmp", "memory:", join(process.cwd(), "relative")]);
  assert.equal(options.onOverflow, { policy: "block-writes", timeout_ms: 5000 });
  assert.is(options.limitBytes, 2 ** 30);
  const taken = JSON.parse(await harness.ok("snapshot_take", "-j", "-i", id));
  assert.equal([taken.images.length, taken.stall_us], [2, 125]);
  assert.equal(JSON.parse(await harness.ok("snapshot_destroy", "-j", "-i", id)), { id });
});

test("if its id cannot be printed, a created snapshot and its attaches are undone", async () => {
  const [fresh, known] = ["/dev/loop2", "/dev/loop3"];
  for (const device of [fresh, known]) harness.driver.devices.set(device, 2 ** 20);
  await harness.ok("attach", "-d", known);
  const tracked = async () =>
    (await harness.driver.status()).trackers.map(({ device }) => device).sort();
  const before = await tracked();
  const words = ["snapshot_create", "-d", fresh, "-d", known, "-f", "/var/tmp", "-l", "1G"];
  for (const more of [[], ["--json"]]) {
    const full = openSync("/dev/full", "w");
    const child = spawn(process.execPath, [program, ...words, ...more], {
      env: { ...process.env, BLKSNAP_SOCKET: harness.socketPath },
      stdio: ["ignore", full, "pipe"],
    });
    closeSync(full);
    let err = "";
    child.stderr?.on("data", (part) => {
      err += part;
    });
    const status = await new Promise((done) => child.on("close", done));
    assert.is(status, 1);
    assert.match(err, "can't write the output: ENOSPC");
    assert.is(harness.driver.snapshots.size, 0);
    assert.equal(await tracked(), before);
  }
});

test("an unwritable map and a repeated device are reported in one clause", async () => {
  await harness.ok("attach", "-d", d0);
  const { err } = await harness.run("readcbtmap", "-d", d0, "-f", "/nowhere/map");
  assert.match(err, "can't write /nowhere/map: No such file or directory (ENOENT). Check");
  const create = ["snapshot_create", "-d", d0, "-d", d0, "-f", "/var/tmp", "-l", "1G"];
  const twice = await harness.run(...create);
  assert.match(twice.err, `${d0} is given twice. Nothing was created; give each device once.`);
});

test("status names fronts that are not served yet", async () => {
  harness.driver.waiting = [{ device: "/dev/sdb", front: "/dev/ublkb3", why: "no such device" }];
  assert.match(
    await harness.ok("status"),
    "\n/dev/ublkb3 of /dev/sdb is not served yet, and its users wait: no such device\n",
  );
  harness.driver.waiting = [];
});

test("status names volumes that are not tracked until they can be attached again", async () => {
  const volume = {
    device: "/dev/vg/a",
    node: "/dev/mapper/vg-a",
    since: "2026-01-02T03:04:05.000Z",
    given_up: false,
  };
  const why = "its users write more than reaches it in 10000 ms";
  harness.driver.untracked = [{ ...volume, why }];
  const text =
    "\n! /dev/vg/a is NOT tracked since 2026-01-02T03:04:05.000Z, as its node got another table; ";
  assert.match(await harness.ok("status"), `${text}it is tried again: ${why}\n`);
  assert.equal(JSON.parse(await harness.ok("status", "--json")).untracked, [{ ...volume, why }]);
  harness.driver.untracked = [{ ...volume, why, given_up: true }];
  assert.match(await harness.ok("status"), `${text}it is NOT retried automatically: ${why}\n`);
  harness.driver.untracked = [{ ...volume, why: null }];
  assert.match(await harness.ok("status"), `${text}it is being attached again\n`);
  harness.driver.untracked = undefined as never;
  assert.not.match(await harness.ok("status"), "NOT tracked");
  harness.driver.untracked = [];
});

test("status names mistakes in the configuration, and configured devices that are not attached", async () => {
  const device = {
    device: "/dev/vg/a",
    from: "/c:3",
    code: "DEVICE_NOT_FOUND",
    why: "no such device",
  };
  harness.driver.configuration = {
    mistakes: ["/c:2: there is no key 'x' here. See blksnap.toml(5)."],
    missing: [
      { ...device, waited_for: true },
      { ...device, device: "/dev/vg/b", waited_for: false },
    ],
  };
  const lines = (await harness.ok("status")).split("\n");
  assert.match(
    lines[1]!,
    "! the configuration has mistakes, and the earlier one stays in force: /c:2: there",
  );
  assert.match(lines[2]!, "! /dev/vg/a (/c:3) is waited for: no such device. It is attached when");
  assert.match(lines[3]!, "! /dev/vg/b (/c:3) is not attached: no such device. Correct that");
  harness.driver.configuration = { mistakes: [], missing: [] };
});

test("status shows everything, for people and as JSON", async () => {
  assert.match(
    await harness.ok("status"),
    /^blksnapd 0\.1\.0, pid \d+, up .*: 0 devices, 0 snapshots\n$/,
  );
  const id = await create();
  await harness.ok("snapshot_take", "-i", id);
  const text = await harness.ok("status");
  assert.match(text, /^DEVICE +FRONT +SIZE +SNAPSHOT +IMAGE +STATE$/m);
  assert.match(text, /^\/dev\/loop0 +\/dev\/ublkb0 +64\.0 MiB +[0-9a-f]{8} +\/dev\/ublkb1 +ok$/m);
  assert.match(text, "\n  number 1, CBT block 64.0 KiB, written 0 B\n");
  assert.match(text, `Snapshot ${id}\ntaken `);
  assert.match(
    text,
    "[██████░░░░░░░░░░░░░░░░░░] 256.0 MiB of 1.0 GiB\non overflow: break-snapshot",
  );
  assert.ok(text.split("\n").every((line) => line.length <= 80));
  assert.match(await harness.ok("status", "-b"), / 67108864 /);
  const json = JSON.parse(await harness.ok("status", "--json"));
  assert.is(json.snapshots[0].devices[0].image, "/dev/ublkb1");
});

test("status names the node to use of a device that is attached live", async () => {
  await harness.ok("attach", "-d", d0, "--live");
  const line = "\n  live: use /dev/loop0, number 0, CBT block 64.0 KiB, written 0 B\n";
  assert.match(await harness.ok("status"), line);
});

test("diff shows ranges as a table, raw, as a picture and as JSON", async () => {
  const id = await create();
  await harness.ok("markdirtyblock", "-d", d0, "-r", "0:65536");
  await harness.ok("snapshot_take", "-i", id);
  const text = await harness.ok("diff", "-d", d0, "--since", "0");
  assert.is(
    text,
    "/dev/loop0  32.0 MiB of 64.0 MiB changed (50.0 %) since number 0, up to 1\n" +
      "OFFSET MiB  LENGTH MiB  KIND\n         0          32  changed\n",
  );
  const map = await harness.ok("diff", "-d", d0, "--since", "0", "--map", "-b");
  assert.match(map, `[${"█".repeat(32)}${" ".repeat(32)}]\n`);
  assert.match(map, /^OFFSET B +LENGTH B +KIND\n +0 +33554432 +changed$/m);
  assert.is(await harness.ok("diff", "-d", d0, "--since", "0", "--raw"), "0:65536\n");
  assert.is(await harness.ok("diff", "-d", d0, "--since", "1", "--raw"), "");
  const nbd = ["diff", "-d", d0, "--format", "nbd", "--since"];
  const rows = ["         0    33554432    1  dirty\n", "  33554432    33554432    0  clean\n"];
  assert.is(await harness.ok(...nbd, "0"), rows.join(""));
  assert.is(await harness.ok(...nbd, "1"), "         0    67108864    0  clean\n");
  const json = JSON.parse(await harness.ok("diff", "-d", d0, "--since", "0", "--json"));
  assert.is(json.changed_bytes, 2 ** 25);
  for (const [format, flag] of [
    ["ranges", []],
    ["raw", ["--raw"]],
    ["json", ["--json"]],
  ] as const) {
    const diff = ["diff", "-d", d0, "--since", "0"];
    assert.is(await harness.ok(...diff, "--format", format), await harness.ok(...diff, ...flag));
  }
  for (const wrong of [
    ["--format", "xml"],
    ["--format", "json", "--raw"],
    ["--raw", "--files"],
    ["--format", "nbd", "--files"],
  ]) {
    const { status, err } = await harness.run("diff", "-d", d0, "--since", "0", ...wrong);
    assert.equal([status, /format/.test(err)], [2, true], err);
  }
  const generation = "00000000-0000-4000-8000-000000000000";
  const other = await harness.run("diff", "-d", d0, "--since", "0", "--generation", generation);
  assert.is(other.status, 1);
});

test("diff --files reports why it cannot name files", async () => {
  await harness.ok("attach", "-d", d0);
  const words = ["diff", "-d", d0, "--since", "0", "--files"];
  const without = await harness.run(...words);
  assert.match(without.err, /--files: \/dev\/loop0 has no image/);
  await harness.ok("snapshot_take", "-i", await create());
  // The fake's image has no file system.
  const { image } = await harness.driver.snapshotInfo(d0);
  const { status, out } = await harness.run(...words, "--json");
  const { name, message } = JSON.parse(out).error;
  assert.equal([status, name], [1, "FILES_NOT_NAMED"]);
  assert.ok(message.includes(image));
});

test("a stream is not written to its own device", async () => {
  const device = join(harness.dir, "device");
  const content = "what the device held";
  writeFileSync(device, content);
  harness.driver.devices.set(device, 2 ** 20);
  await harness.ok("attach", "-d", device);
  const out = openSync(device, "r+");
  const child = spawn(process.execPath, [program, "export", "-d", device, "--to", "-"], {
    env: { ...process.env, BLKSNAP_SOCKET: harness.socketPath },
    stdio: ["ignore", out, "pipe"],
  });
  closeSync(out);
  let err = "";
  child.stderr?.on("data", (part) => {
    err += part;
  });
  const status = await new Promise((done) => child.on("close", done));
  assert.is(status, 1);
  assert.match(err, `${device} is the device that is exported`);
  assert.is(readFileSync(device, "utf8"), content);
  assert.is(harness.driver.snapshots.size, 0);
});

test.run();
