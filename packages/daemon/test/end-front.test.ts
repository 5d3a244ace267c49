/** end-front detaches a volume before it is closed, and ends in all cases. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";

const PROGRAM = join(import.meta.dirname, "../libexec/end-front");
const MARK = "run/blksnap-udev/fronts/ublkb7";
const test = suite("end-front");

let root: string;
function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "blksnap-end-front-"));
  write("dev/mapper/data", "");
  write("dev/ublkb7", "");
  write("sys/class/block/data/dev", "254:3\n");
});
test.after.each(() => rmSync(root, { recursive: true }));

/** @param blksnapctl shell commands in its place */
function endFront(blksnapctl: string, seconds: number, programs: Record<string, string> = {}) {
  write("usr/bin/blksnapctl", `#!/bin/sh\nR=${root}\necho "$*" >> $R/told\n${blksnapctl}\n`);
  chmodSync(join(root, "usr/bin/blksnapctl"), 0o755);
  for (const [name, commands] of Object.entries(programs)) {
    write(`bin/${name}`, `#!/bin/sh\n${commands}\n`);
    chmodSync(join(root, "bin", name), 0o755);
  }
  const env = {
    PATH: `${join(root, "bin")}:${process.env["PATH"]}`,
    BLKSNAP_BOOT_ROOT: root,
    BLKSNAP_END_SECONDS: String(seconds),
  };
  const words = [PROGRAM, "/dev/mapper/data"];
  const { status, stderr } = spawnSync("sh", words, { env, encoding: "utf8" });
  assert.is(status, 0, stderr);
  const told = join(root, "told");
  return { said: stderr, told: existsSync(told) ? readFileSync(told, "utf8") : "" };
}

test("a volume without a front, or one that is not open, is closed at once", () => {
  assert.equal(endFront("exit 1", 3600), { said: "", told: "" });
  write(MARK, "254:4\n");
  assert.equal(endFront("exit 1", 3600), { said: "", told: "" });
  write(MARK, "254:3\n");
  rmSync(join(root, "dev/mapper/data"));
  assert.equal(endFront("exit 1", 3600), { said: "", told: "" });
});

test("its front is detached, and a refusal retried", () => {
  write(MARK, "254:3\n");
  const detach = "detach --device /dev/mapper/data\n";
  const third = `[ "$(wc -l < $R/told)" = 3 ] && rm $R/${MARK}`;
  assert.equal(endFront(third, 3600), { said: "", told: detach.repeat(3) });
});

test("a daemon that ends meanwhile has released it", () => {
  write(MARK, "254:3\n");
  const { said } = endFront(`rm $R/dev/ublkb7; echo 'no daemon' >&2; exit 1`, 3600);
  assert.is(said, "");
});

test("a volume that is refused for too long stays, is reported, and is closed by the kernel at shutdown", () => {
  write(MARK, "254:3\n");
  const refused = "echo 'in use [FRONT_IN_USE]' >&2; exit 1";
  const said = "/dev/mapper/data has a front, and is not closed: ";
  const dmsetup = 'echo "dmsetup $*" >&2';
  const on = endFront(refused, 1, { systemctl: "echo running", dmsetup });
  assert.match(on.said, said);
  assert.not.match(on.said, "dmsetup");
  const down = endFront(refused, 1, { systemctl: "echo stopping; exit 1", dmsetup });
  assert.match(down.said, said);
  assert.match(down.said, "\ndmsetup remove --deferred data\n");
});

test.run();
