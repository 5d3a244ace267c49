/** Checks the VM runner itself: node tools/vm/selftest.mjs [--uml] [WORD...] */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runInVm } from "./lib/run.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const work = realpathSync(mkdtempSync(join(tmpdir(), "blksnap-vm-selftest-")));

const words = process.argv.slice(2);
const isUml = words[0] === "--uml";
const machine = isUml ? ["--uml"] : [];
const NOT_FOR_UML = [
  "keeps what was written to a disk",
  "reports that the emulator broke",
  "does not use a guest in which time",
];

/** Ends with the exit status and both outputs; `during` gets the process while it runs. */
function vm(rest, { cwd = here, during = () => {} } = {}) {
  return new Promise((done, failed) => {
    const child = spawn(process.execPath, [join(here, "vm.mjs"), ...machine, ...rest], { cwd });
    const result = { status: null, stdout: "", stderr: "" };
    child.stdout.on("data", (chunk) => {
      result.stdout += chunk;
      during(child, result);
    });
    child.stderr.on("data", (chunk) => {
      result.stderr += chunk;
    });
    child.on("error", failed);
    child.on("close", (status) => done({ ...result, status }));
  });
}

/** The processes on this machine whose command line holds the text. */
function processesWith(text) {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text);
      } catch {
        return false;
      }
    });
}

const checks = {
  async "passes the exit status on"() {
    assert.equal((await vm(["true"])).status, 0);
    assert.equal((await vm(["sh", "-c", "exit 3"])).status, 3);
    assert.equal((await vm(["sh", "-c", "kill -9 $$"])).status, 137);
    assert.equal((await vm(["no-such-command"])).status, 127);
  },

  async "keeps output and error output apart and clean"() {
    const big = "head -c 3000000 /dev/zero | tr '\\0' x";
    const run = await vm(["sh", "-c", `echo one; echo two >/dev/stderr; ${big}; echo 'a\r'`]);
    assert.equal(run.stdout, `one\n${"x".repeat(3_000_000)}a\r\n`);
    assert.equal(run.stderr, "two\n");
  },

  async "runs in the caller's folder, also below one that the guest covers"() {
    writeFileSync(join(work, "file"), "content");
    const run = await vm(["sh", "-c", "pwd; cat file"], { cwd: work });
    assert.equal(run.stdout, `${work}\ncontent`);
  },

  async "keeps arguments and variables as they are"() {
    const odd = ["a b", "it's", '"quoted"', "$HOME", "new\nline", "*", ""];
    const script = "console.log(JSON.stringify([process.argv.slice(1), process.env.ODD]))";
    const run = await vm(["--env", "ODD=x 'y' $z", "node", "-e", script, "--", ...odd]);
    assert.deepEqual(JSON.parse(run.stdout), [odd, "x 'y' $z"]);
  },

  async "gives ublk and the kernel modules that tests want"() {
    const modules = ["null_blk", "brd", "dm-snapshot", ...(isUml ? [] : ["xfs", "btrfs"])];
    const script = `set -e; test -c /dev/ublk-control; for m in ${modules.join(" ")}; do modprobe $m; done; ulimit -l; cat /sys/class/net/lo/flags; findmnt -no FSTYPE /dev/shm`;
    const run = await vm(["sh", "-c", script]);
    assert.equal(run.status, 0, run.stderr);
    assert.deepEqual(run.stdout.split("\n"), ["unlimited", "0x9", "tmpfs", ""]);
  },

  async "brings only the shared folder back"() {
    const stray = join(here, "selftest-stray");
    const share = join(work, "share");
    const script = `echo guest >${stray}; echo guest >/etc/selftest-stray; mkdir -p /mnt/x; ${isUml ? "mount -t hostfs none /mnt/x" : "mount -t virtiofs host /mnt/x"}; echo guest 2>/dev/null >/mnt/x${stray}; echo result >$BLKSNAP_VM_SHARE/result; cat ${stray}`;
    const run = await vm(["--share", share, "sh", "-c", script]);
    assert.equal(run.stdout, "guest\n");
    assert.equal(existsSync(stray), false);
    assert.equal(existsSync("/etc/selftest-stray"), false);
    assert.equal(readFileSync(join(share, "result"), "utf8"), "result\n");
    assert.match(readFileSync(join(share, "dmesg.txt"), "utf8"), /Linux version \d/);
  },

  async "keeps what was written to a disk, through a power cut too"() {
    const disk = join(work, "disk,with comma.raw");
    writeFileSync(disk, Buffer.alloc(1 << 20));
    const write = "printf first | dd of=/dev/vda conv=fsync status=none; echo done; sleep 100";
    const cut = await vm(["--disk", disk, "sh", "-c", write], {
      during: (child) => child.kill("SIGTERM"),
    });
    assert.equal(cut.status, 143);
    const read = "head -c 5 /dev/vda; printf x >/dev/vda || echo read-only";
    const run = await vm(["--disk", `${disk},ro`, "sh", "-c", read]);
    assert.match(run.stdout, /^firstread-only/);
  },

  async "ends at once on SIGTERM and leaves no process"() {
    const share = join(work, "share-of-ended");
    let startedMs;
    const run = await vm(["--share", share, "sh", "-c", "echo up; sleep 100"], {
      during: (child) => {
        startedMs = Date.now();
        assert.notEqual(processesWith(share).length, 0);
        child.kill("SIGTERM");
      },
    });
    assert.equal(run.status, 143);
    assert.ok(Date.now() - startedMs < 3_000);
    assert.deepEqual(processesWith(share), []);
  },

  async "leaves no process when it is killed itself"() {
    const share = join(work, "share-of-killed");
    await vm(["--share", share, "sh", "-c", "echo up; sleep 100"], {
      during: (child) => child.kill("SIGKILL"),
    });
    await new Promise((done) => setTimeout(done, 500));
    assert.deepEqual(processesWith(share), []);
  },

  async "ends at the time limit and keeps the kernel log"() {
    const share = join(work, "share-of-limited");
    const run = await vm(["--share", share, "--time-limit-s", "15", "sh", "-c", "echo up; cat"]);
    assert.equal(run.status, 0, "a command that reads its empty input ends");
    const limited = await vm(["--share", share, "--time-limit-s", "15", "sleep", "100"]);
    assert.equal(limited.status, 124);
    assert.match(limited.stderr, /time limit of 15 s reached/);
    assert.match(readFileSync(join(share, "dmesg.txt"), "utf8"), /Show Blocked State/);
  },

  async "ends although the command left processes behind"() {
    const run = await vm(["--time-limit-s", "60", "sh", "-c", "sleep 100 & echo left"]);
    assert.equal(run.status, 0);
    assert.equal(run.stdout, "left\n");
  },

  async "reports a panic with the console's last lines"() {
    const run = await vm(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 10"]);
    assert.equal(run.status, 125);
    assert.match(run.stderr, isUml ? /panic\+/ : /Kernel panic/);
  },

  async "reports that the emulator broke the guest"() {
    // Message of such a kernel; the fault itself is random.
    const script = "echo 'Oops: int3: 0000 [#1] SMP' >/dev/ttyS0; echo c >/proc/sysrq-trigger";
    const run = await vm(["sh", "-c", script]);
    assert.equal(run.status, 125);
    assert.match(run.stderr, /the emulator broke the guest's kernel/);
  },

  async "does not use a guest in which time passes too fast"() {
    let retries = 0;
    const result = await runInVm({
      command: ["true"],
      kernelOptions: ["no-kvmclock", "tsc_early_khz=200000"],
      onProgress: (text) => {
        if (text.includes("retrying")) retries++;
      },
    });
    assert.deepEqual([result.status, retries], [null, 2]);
    assert.match(result.console, /the clock is wrong by \d+ s/);
  },

  async "refuses wrong use"() {
    assert.equal((await vm([])).status, 2);
    assert.equal((await vm(["--nonsense", "true"])).status, 2);
  },
};

let failedCount = 0;
const wanted = isUml ? words.slice(1) : words;
for (const [name, check] of Object.entries(checks)) {
  if (isUml && NOT_FOR_UML.some((text) => name.startsWith(text))) continue;
  if (wanted.length > 0 && !wanted.some((word) => name.includes(word))) continue;
  const startMs = Date.now();
  try {
    await check();
    console.log(`ok    ${name} (${((Date.now() - startMs) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failedCount++;
    console.log(`FAIL  ${name}\n${error.stack}`);
  }
}
rmSync(work, { recursive: true, force: true });
process.exitCode = failedCount === 0 ? 0 : 1;
