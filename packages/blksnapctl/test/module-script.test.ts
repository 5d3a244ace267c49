/** A script for the kernel module's tool runs unchanged with blksnapctl. */
import { spawn } from "node:child_process";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { eventually, type Harness, program, startHarness } from "./harness.js";

const SCRIPT = `
set -eu
blksnap version > version
blksnap attach --device=/dev/loop0 | grep -q '^Attached successfully$'
blksnap attach -d/dev/loop0 | grep -q '^Already was attached$'

# The short form, a beginning of a name, and several values at once.
ID=$(blksnap snapshot_create --dev /dev/loop0 -f/var/tmp -l 2G)
blksnap snapshot_add --id="\${ID}" --device /dev/loop1
test "$(blksnap snapshot_info -d /dev/loop1 -f error_code)" = 0
blksnap snapshot_watcher --id=\${ID} > watched &
WATCHER=$!
until grep -qs Start watched; do sleep 0.1; done
blksnap snapshot_take -i "\${ID}"
IMAGE=$(blksnap snapshot_info --device /dev/loop0 --field image)
eval "$(blksnap snapshot_info --device /dev/loop0)"
test "\${image}" = "\${IMAGE}"
test "\${error_code}" -eq 0

eval "$(blksnap cbtinfo --device /dev/loop0)"
test "\${device_capacity}" -eq $((block_size * block_count))
test "\${changes_number}" -eq 1
blksnap markdirtyblock --device /dev/loop0 --range 0:8 2048:8
blksnap readcbtmap --device /dev/loop0 --file map
test "$(stat -c %s map)" -eq "\${block_count}"

eval "$(blksnap snapshot_waitevent --id \${ID} --timeout 1)"
test "\${result}" = timeout
if blksnap snapshot_take --id "\${ID}" 2> errors; then exit 1; fi
test "$(wc -l < errors)" -eq 1

for SNAPSHOT in $(blksnap snapshot_collect); do
  blksnap snapshot_destroy --id "\${SNAPSHOT}"
done
wait \${WATCHER}
test -z "$(blksnap snapshot_collect)"
blksnap detach --device /dev/loop0
blksnap detach -d /dev/loop1
echo finished
`;

test("a script for the module's tool runs unchanged", async () => {
  const harness = await startHarness();
  const { driver } = harness;
  const destroy = driver.snapshotDestroy.bind(driver);
  // The watcher prints "Start" before it watches.
  driver.snapshotDestroy = async (...words) => {
    const { events } = driver.snapshots.get(words[0]) ?? {};
    await eventually("somebody watches", () => events === undefined || events.sleepers > 0);
    return destroy(...words);
  };
  try {
    await runScript(harness);
  } finally {
    await harness.stop();
  }
});

test("a script that fails leaves no watcher behind, which would hold the pipes", async () => {
  const harness = await startHarness();
  try {
    const fails = "blksnap snapshot_watcher --id=$ID & echo $! >watcher; exit 3";
    const id = (
      await harness.ok("snapshot_create", "-d", "/dev/loop0", "-f", "memory:", "-l", "2G")
    ).trim();
    const { status } = await runShell(harness, `ID=${id}; ${fails}`);
    assert.is(status, 3);
    assert.match(await readFile(join(harness.dir, "watcher"), "utf8"), /^[0-9]+.$/s);
  } finally {
    await harness.stop();
  }
});

/** Ends the script's background processes, too. */
async function runShell(harness: Harness, script: string) {
  const tool = join(harness.dir, "blksnap");
  await writeFile(tool, `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`);
  await chmod(tool, 0o755);
  const child = spawn("sh", ["-c", script], {
    cwd: harness.dir,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      BLKSNAP_SOCKET: harness.socketPath,
      PATH: `${harness.dir}:/usr/bin:/bin`,
    },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (part) => {
      output += part;
    });
  }
  const closed = new Promise((done) => child.on("close", done));
  const status = await new Promise((done) => child.on("exit", done));
  try {
    process.kill(-(child.pid as number), "SIGKILL");
  } catch (error) {
    // All have ended.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
  await closed;
  return { status, output };
}

async function runScript(harness: Harness): Promise<void> {
  const { status, output } = await runShell(harness, SCRIPT);
  const told = output
    .split("\n")
    .filter((line) => !/^(device|image)=|successfully$|not frozen/.test(line));
  assert.equal([status, told], [0, ["finished", ""]]);
  assert.is(await readFile(join(harness.dir, "version"), "utf8"), "2.0.0.0\n");
  assert.is(
    await readFile(join(harness.dir, "watched"), "utf8"),
    "Start snapshot watcher.\nSnapshot not found\nSnapshot watcher finished\n",
  );
}

test.run();
