/** The examples, as a user runs them. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { listDeviceIds } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  begin,
  bytesAt,
  examplesDir,
  fio,
  ramDisk,
  run,
  until,
  untilNoDevice,
  withDevice,
} from "./support.mjs";

const rublk = (...args) => run(process.execPath, `${examplesDir}rublk.mjs`, ...args);

function refused(...args) {
  const done = spawnSync(process.execPath, [`${examplesDir}rublk.mjs`, ...args], {
    encoding: "utf8",
  });
  assert.is(done.status, 1, done.stdout);
  return done.stderr;
}

test("ram-disk serves a command and ends with its status", async () => {
  const script = "mkfs.ext4 -q $DEVICE && exit 3";
  const { status, output } = await begin(
    process.execPath,
    `${examplesDir}ram-disk.mjs`,
    "sh",
    "-c",
    script,
  ).closed;
  assert.is(status, 3, output);
  assert.match(output, "/dev/ublkb0 is ready");
  await untilNoDevice();
});

test("rublk adds in the background, lists, deletes", async () => {
  const added = rublk("add", "-t", "null", "-n", "0", "-s", "1048576");
  assert.match(
    added,
    /^dev id 0: nr_hw_queues 1 queue_depth 128 block size 512 dev_capacity 2048$/m,
  );
  assert.match(added, /^\tmax rq size 524288 daemon pid \d+ flags 0x[0-9a-f]+ state LIVE$/m);
  assert.match(added, /^\tublkc: \d+:\d+ ublkb: \d+:\d+ owner: 0:0$/m);
  assert.match(added, /^\tqueue 0: tid \d+ affinity\([\d ]+\)$/m);
  assert.match(added, /^\ttarget \{"name":"null","dev_size":1048576\}$/m);
  assert.is(rublk("list", "-n", "0"), added);
  const disk = ramDisk(32);
  rublk("add", "-t", "loop", "-f", disk, "-n", "1");
  await fio("/dev/ublkb1", "--rw=randwrite", "--bs=4k", "--size=1m", "--verify=crc32c");
  assert.equal(listDeviceIds(), [0, 1]);
  assert.match(refused("add", "-t", "null", "-n", "1"), "EEXIST");
  assert.match(refused("add", "-t", "loop", "-f", disk), "in use");
  rublk("del", "-n", "0");
  assert.not(existsSync("/dev/ublkb0"));
  rublk("del", "-a");
  assert.equal(listDeviceIds(), []);
});

test("rublk lists a device whose server was killed as DEAD, and deletes it", async () => {
  const added = rublk("add", "-t", "memory", "-n", "0");
  const pid = Number(/daemon pid (\d+)/.exec(added)?.[1]);
  process.kill(pid, "SIGKILL");
  const fields = () => /max rq.*/.exec(rublk("list", "-n", "0"))?.[0].split(" ") ?? [];
  await until(() => fields().at(-1) === "DEAD", "the device is not dead");
  rublk("del", "-n", "0");
  assert.equal(listDeviceIds(), []);
});

test("the target of the README reads as zeroes and refuses writes", async () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const text = /```js\n(\/\/ zeroes\.mjs.*?)```/s.exec(readme)?.[1] ?? "";
  writeFileSync("/dev/shm/zeroes.mjs", text);
  const { zeroes } = await import("/dev/shm/zeroes.mjs");
  await withDevice({ target: zeroes(1 << 20) }, ({ path }) => {
    assert.ok(bytesAt(path, 0, 1 << 20).every((byte) => byte === 0));
    const dd = ["if=/dev/zero", `of=${path}`, "bs=4k", "count=1", "oflag=direct"];
    assert.is.not(spawnSync("dd", dd).status, 0);
  });
});

test("rublk lists the features, and reports errors", () => {
  assert.match(rublk("features"), /^USER_RECOVERY$/m);
  assert.match(refused("list", "-n", "9"), "no ublk device has number 9");
  assert.match(refused("del", "-n", "9"), "ENODEV");
  assert.match(refused("add", "-t", "tape"), "unknown type");
  assert.match(refused("turn"), "usage");
});

test.run();
