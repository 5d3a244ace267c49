import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isServedOverNbd } from "../dist/doctor/doctor.js";
import type { Finding } from "../dist/doctor/finding.js";
import { HostFiles, ownerOf, ownProcesses } from "../dist/doctor/host-files.js";
import { checkProcesses } from "../dist/doctor/processes.js";

const STATE = "/run/blksnap";
const roots: string[] = [];
test.after(() => {
  for (const root of roots) rmSync(root, { recursive: true });
});

/** A host with a supervisor (10), the daemon (11), a standby (12) and programs that only look similar. */
function healthyHost() {
  const root = mkdtempSync(join(tmpdir(), "blksnap-doctor-"));
  roots.push(root);
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  const link = (path: string, target: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    symlinkSync(target, join(root, path));
  };
  const process = (pid: number, parent: number, words: readonly string[]): void => {
    put(`proc/${pid}/cmdline`, words.map((word) => `${word}\0`).join(""));
    put(`proc/${pid}/stat`, `${pid} (node (x) y) S ${parent} 1 1`);
  };
  const node = "/usr/bin/node";
  process(10, 1, [node, "/usr/bin/blksnapd", "--supervise"]);
  process(11, 10, [node, "/usr/bin/blksnapd", "--supervised"]);
  process(12, 10, [node, "/usr/bin/blksnapd", "--standby"]);
  process(13, 11, ["/bin/sh", "-c", "script", "freeze-guard", "30"]);
  process(14, 1, ["/usr/bin/vi", "/usr/bin/blksnapd"]);
  process(15, 1, [node, "/usr/bin/blksnapd", "--doctor"]);
  link("proc/11/fd/20", `${STATE}/lock`);
  const flags = 0x400040 | 0x80000 | 0x100000;
  for (const tid of [11, 21]) {
    put(`proc/11/task/${tid}/stat`, `${tid} (node) S 10 1 1 0 -1 ${flags} 0`);
  }
  put("proc/11/status", "Name:\tnode\nVmLck:\t   5000 kB\nVmSwap:\t  0 kB\n");
  put("proc/11/limits", "Max locked memory         unlimited            unlimited   bytes\n");
  put("proc/11/oom_score_adj", "-1000\n");
  put("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n");
  put("proc/11/cgroup", "0::/system.slice/blksnapd.service\n");
  put("sys/fs/cgroup/system.slice/blksnapd.service/memory.swap.max", "0\n");
  link("proc/1/ns/mnt", "mnt:[1]");
  link("proc/11/ns/mnt", "mnt:[2]");
  put("proc/1/mountinfo", "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n");
  put("proc/11/mountinfo", "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n");
  link("proc/11/exe", node);
  const host = new HostFiles(root);
  return {
    host,
    put,
    link,
    remove: (path: string) => rmSync(join(root, path), { recursive: true }),
  };
}

function look(host: HostFiles): Map<string, Finding> {
  const processes = ownProcesses(host, 15);
  const findings = checkProcesses(host, ownerOf(host, STATE, processes), processes);
  return new Map(findings.map((finding) => [finding.check, finding]));
}

test("a daemon that serves over NBD is recognised by its arguments, and by its records", () => {
  const none = { trackers: [] };
  const isNbd = (...words: string[]) => isServedOverNbd({ words }, none);
  assert.ok(isNbd("node", "blksnapd", "--frontend=nbd"));
  assert.ok(isNbd("node", "blksnapd", "--frontend", "nbd", "--supervised"));
  assert.not.ok(isNbd("node", "blksnapd", "--frontend", "ublk"));
  assert.not.ok(isServedOverNbd(undefined, none));
  assert.ok(isServedOverNbd(undefined, { trackers: [{ front: null } as never] }));
  assert.not.ok(isServedOverNbd(undefined, { trackers: [{ front: 0 } as never] }));
});

test("a daemon without devices needs no memory protection", () => {
  const { host, put } = healthyHost();
  put("proc/11/status", "Name:\tnode\nVmLck:\t   0 kB\nVmSwap:\t  8 kB\n");
  const processes = ownProcesses(host, 15);
  const findings = checkProcesses(host, ownerOf(host, STATE, processes), processes, true);
  assert.equal(
    findings.map(({ check, state }) => `${check} ${state}`),
    ["daemon ok", "standby ok", "program ok", "log ok"],
  );
});

test("advice fits the host: its units, and daemons that need no root", () => {
  const { host, put, remove } = healthyHost();
  remove("proc/10");
  const processes = ownProcesses(host, 15);
  const hints = (isServed: boolean): (string | undefined)[] => {
    const daemon = isServed ? ownerOf(host, STATE, processes) : undefined;
    const [first, standby] = checkProcesses(host, daemon, processes, true);
    return [first?.hint, standby?.hint];
  };
  assert.equal(hints(true), [undefined, "Start it as blksnapd --supervise"]);
  assert.equal(hints(false), ["Start it: blksnapd --supervise", undefined]);
  put("usr/lib/systemd/system/blksnapd.service", "[Service]\n");
  assert.equal(hints(false), ["Start it: systemctl start blksnapd", undefined]);
});

const notOk = (found: Map<string, Finding>) =>
  [...found.values()].filter(({ state }) => state !== "ok").map(({ check }) => check);

test("processes are recognised by the program that they run", () => {
  const { host } = healthyHost();
  const processes = ownProcesses(host, 15);
  assert.equal(
    processes.map(({ pid, role }) => [pid, role]),
    [
      [10, "supervisor"],
      [11, "daemon"],
      [12, "daemon"],
      [13, "freeze-guard"],
    ],
  );
  assert.is(ownerOf(host, STATE, processes)?.pid, 11);
  assert.is(ownerOf(host, "/run/other", processes), undefined);
});

test("a well-protected daemon has no findings", () => {
  assert.equal(notOk(look(healthyHost().host)), []);
});

type Fault = (world: ReturnType<typeof healthyHost>) => void;

const faults: readonly [check: string, state: string, what: RegExp, fault: Fault][] = [
  ["daemon", "warning", /no daemon runs/, ({ remove }) => remove("proc/11/fd")],
  ["standby", "warning", /no second daemon/, ({ remove }) => remove("proc/12")],
  ["standby", "warning", /no supervisor/, ({ remove }) => remove("proc/10")],
  [
    "io_flusher",
    "error",
    /threads 22 of daemon 11/,
    ({ put }) => put("proc/11/task/22/stat", "22 (V8 Worker) S 10 1 1 0 -1 4194368 0"),
  ],
  [
    "locked_memory",
    "error",
    /nothing of daemon 11 is locked/,
    ({ put }) => put("proc/11/status", "VmLck:\t       0 kB\n"),
  ],
  ["oom_score", "warning", /of 0$/, ({ put }) => put("proc/11/oom_score_adj", "0\n")],
  [
    "swap",
    "error",
    /64 KiB of daemon 11/,
    ({ put }) => put("proc/11/status", "VmLck:\t 10 kB\nVmSwap:\t 64 kB\n"),
  ],
  ["swap", "warning", /may be swapped out/, ({ put }) => put("proc/11/cgroup", "0::/other\n")],
  [
    "mount_namespace",
    "warning",
    /users' mount namespace/,
    ({ remove, link }) => {
      remove("proc/11/ns/mnt");
      link("proc/11/ns/mnt", "mnt:[1]");
    },
  ],
  [
    "program",
    "error",
    /\/usr\/bin\/node lies on a ublk device/,
    ({ put }) =>
      put(
        "proc/11/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:0 / /usr rw - ext4 /dev/ublkb0 rw\n",
      ),
  ],
  [
    "log",
    "error",
    /\/var\/log\/blksnapd lies on a ublk device/,
    ({ put, link }) => {
      link("proc/11/fd/2", "/var/log/blksnapd");
      put(
        "proc/11/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 259:0 / /var rw - ext4 /dev/ublkb0 rw\n",
      );
    },
  ],
];

for (const [check, state, what, fault] of faults) {
  test(`a problem is found: ${check}, ${what.source}`, () => {
    const world = healthyHost();
    fault(world);
    const found = look(world.host);
    assert.equal(notOk(found), [check]);
    const finding = found.get(check);
    assert.is(finding?.state, state);
    assert.match(finding?.what ?? "", what);
    assert.ok(finding?.why && finding.hint);
  });
}

test("no swap, and a private root, need nothing", () => {
  const { host, put, remove, link } = healthyHost();
  put("proc/swaps", "Filename\n");
  put("proc/11/cgroup", "0::/other\n");
  put("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n");
  remove("proc/11/ns/mnt");
  link("proc/11/ns/mnt", "mnt:[1]");
  assert.equal(notOk(look(host)), []);
});

test.run();
