import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { mountsInHelper, ReachedFileSystems } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";

/** End only what hangs. */
const LIMIT_MS = 200_000;
const test = suite("mounts of other namespaces");
let folder: string;
const containers: ChildProcess[] = [];

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap mounts-"));
});
test.after.each(async () => {
  for (const container of containers.splice(0)) {
    container.stdin?.end();
    while (container.exitCode === null && container.signalCode === null) await sleep(10);
  }
  rmSync(folder, { recursive: true });
});

/**
 * Runs a script in a mount namespace of its own and answers the numbers of file systems that it wrote. What
 * it leaves running ends when its input does.
 */
async function container(script: string): Promise<{ devices: string[]; pid: number }> {
  const told = join(folder, `told-${containers.length}`);
  const child = spawn(
    "unshare",
    [
      "-m",
      "--propagation",
      "private",
      "sh",
      "-ec",
      `exec 3<&0\n${script}\necho end >>"$TOLD"; read line`,
    ],
    { cwd: folder, env: { ...process.env, TOLD: told }, stdio: ["pipe", "inherit", "inherit"] },
  );
  containers.push(child);
  const end = performance.now() + LIMIT_MS;
  while (!existsSync(told) || !readFileSync(told, "utf8").endsWith("end\n")) {
    if (performance.now() > end || child.exitCode !== null) throw new Error("no container");
    await sleep(10);
  }
  const devices = readFileSync(told, "utf8").trim().split("\n").slice(0, -1);
  return { devices: devices.map((one) => `0:${one}`), pid: child.pid ?? 0 };
}

/** Mounts a file system with a file on it, and notes its number. */
const MOUNT = (name: string, content = name) => `
  mkdir -p "${name}"; mount -t tmpfs blksnap-test "${name}"; echo "${content}" >"${name}/file"
  stat -c %d "${name}" >>"$TOLD";`;

/** What is in the file of each file system, through what was opened of it. */
function contents(reached: ReachedFileSystems, devices: readonly string[]): string[] {
  return devices.map((device) => {
    const { path, place } = reached.get(device);
    if (path === undefined) return `not reached: ${place}`;
    const file = existsSync(join(path, "file")) ? join(path, "file") : path;
    return readFileSync(file, "utf8").trim();
  });
}

test("each file system is listed once, with its process; other types without a device are not", async () => {
  const { devices, pid } = await container(`${MOUNT("one\ttab")} ${MOUNT("two")}
    mkdir again; mount --bind two again`);
  const { mounts, isComplete } = await mountsInHelper(["tmpfs"], LIMIT_MS);
  assert.ok(isComplete);
  const own = mounts.filter(({ line }) => devices.includes(line.split(" ")[2] ?? ""));
  assert.equal(
    own.map(({ pid: its, line }) => [its, line.split(" ")[2], line.includes("\\011tab")]),
    [
      [pid, devices[0], true],
      [pid, devices[1], false],
    ],
  );
  const others = await mountsInHelper([], LIMIT_MS);
  assert.equal(
    others.mounts.filter(({ line }) => line.split(" ")[2]?.startsWith("0:")),
    [],
  );
});

test("hundreds of namespaces, none of them twice; no time is time enough for none", async () => {
  const many = 200;
  const { devices } = await container(`${MOUNT("one")}
    for i in $(seq ${many}); do unshare -m sh -c 'echo >>"$0"; read line' "$TOLD.n" <&3 & done
    until [ "$(wc -l <"$TOLD.n")" = ${many} ]; do sleep 0.1; done`);
  const { mounts, isComplete } = await mountsInHelper(["tmpfs"], LIMIT_MS);
  assert.ok(isComplete);
  assert.is(mounts.filter(({ line }) => line.split(" ")[2] === devices[0]).length, 1);
  assert.is((await mountsInHelper(["tmpfs"], 0)).isComplete, false);
});

test("file systems are reached that are mounted elsewhere, hidden by others, or unmounted but in use", async () => {
  const elsewhere = await container(`${MOUNT("elsewhere")}
    ${MOUNT("below")} ${MOUNT("below/deep")} ${MOUNT("below", "over")} ${MOUNT("below", "over all")}`);
  const open = await container(`${MOUNT("open")} exec 5<open/file; umount -l open`);
  const directory = await container(`${MOUNT("cwd")} cd cwd; umount -l ../cwd`);
  const mapped = await container(`${MOUNT("mapped")} cp "$(command -v cat)" mapped/cat
    mapped/cat <&3 & until [ "$(readlink /proc/$!/exe)" = "$PWD/mapped/cat" ]; do sleep 0.1; done
    umount -l mapped`);
  const devices = [elsewhere, open, directory].flatMap((one) => one.devices);
  const all = [...devices, ...mapped.devices, "0:999999"];
  const reached = await ReachedFileSystems.open(all, LIMIT_MS);
  try {
    assert.equal(contents(reached, devices), [
      "elsewhere",
      "below",
      "below/deep",
      "over",
      "over all",
      "open",
      "cwd",
    ]);
    const exe = reached.get(mapped.devices[0] ?? "");
    assert.match(exe.place, /^\/proc\/\d+\/(exe|map_files\/.*)$/);
    assert.is(readFileSync(exe.path ?? "").toString("latin1", 1, 4), "ELF");
    const none = reached.get("0:999999");
    assert.equal([none.path, none.place], [undefined, "it is neither mounted nor open"]);
    assert.match(
      reached.get(elsewhere.devices[0] ?? "").place,
      /blksnap\\040mounts-.*\/elsewhere$/,
    );
    assert.is(reached.get(elsewhere.devices[0] ?? "").pid, elsewhere.pid);
  } finally {
    reached.release();
  }
  // What lies over it for its users does so still.
  const root = `/proc/${elsewhere.pid}/root${folder}`;
  assert.is(readFileSync(join(root, "below/file"), "utf8"), "over all\n");
  mkdirSync(join(root, "below/made"));
});

test.run();
