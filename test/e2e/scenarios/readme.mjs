/** The README's commands for a real host, as they stand there, and who may use the daemon then. */
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { mapped, sectorsOf } from "../lib/device-mapper.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

const README = new URL("../../../README.md", import.meta.url);
const REPOSITORY = new URL("../../../", import.meta.url).pathname;
const LOG = "/var/log/blksnapd.log";
const GROUP_ID = 4242;
const LIMIT_MS = 500_000;
const test = scenario(import.meta.url, { daemon: false });

/** The shell commands of a section, as a user copies them. */
function commandsOf(section) {
  const text = readFileSync(README, "utf8");
  const start = text.indexOf(`\n## ${section}\n`);
  assert.ok(start >= 0, `the README has a section "${section}"`);
  const body = text.slice(start + 1, text.indexOf("\n## ", start + 1));
  return [...body.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block).join("");
}

/** /dev/vg/data with a file system, mounted at /srv/data as on a host that has it in use. */
async function volume(t) {
  const disk = await loopDisk(t, 64 * MIB);
  const { path } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  mkdirSync("/dev/vg");
  symlinkSync(path, "/dev/vg/data");
  t.defer(() => rmSync("/dev/vg", { recursive: true }));
  await makeFileSystem("ext4", "/dev/vg/data");
  mkdirSync("/srv/data", { recursive: true });
  await run(["mount", "/dev/vg/data", "/srv/data"]);
}

test('"On a real host", copied', async (t) => {
  await volume(t);
  const commands = commandsOf("On a real host");
  for (const verb of ["blksnapd --supervise", "attach", "snapshot_take", "diff", "daemon stop"]) {
    assert.ok(commands.includes(verb), `the section has ${verb}`);
  }
  // It was built before: here nothing can be fetched.
  const script = commands.replace(/^npm run build.*$/m, ":");
  assert.is.not(script, commands, "the section builds first");
  t.defer(() => rmSync(LOG, { force: true }));
  const out = await run(["bash", "-e", "-u", "-c", `${script}\nwait`], {
    cwd: REPOSITORY,
    timeLimitMs: LIMIT_MS,
  });
  assert.match(out, "front=/dev/ublkb0");
  assert.match(out, /^image=\/dev\/ublkb\d+$/m);
});

test("a member of the group blksnap may use a daemon that was started by hand", async (t) => {
  const groups = readFileSync("/etc/group", "utf8");
  writeFileSync("/etc/group", `${groups}blksnap:x:${GROUP_ID}:\n`);
  t.defer(() => writeFileSync("/etc/group", groups));
  t.defer(() => rmSync(LOG, { force: true }));
  const member = `setpriv --reuid 65534 --regid ${GROUP_ID} --clear-groups --`;
  const other = "setpriv --reuid 65534 --regid 65534 --clear-groups --";
  const script = `
    export PATH=$PWD/node_modules/.bin:$PATH
    rm -rf /run/blksnap
    umask 077
    blksnapd 2>${LOG} &
    blksnapctl --wait version
    ${member} "$(command -v node)" node_modules/.bin/blksnapctl status
    if ${other} "$(command -v node)" node_modules/.bin/blksnapctl status; then exit 9; fi
    stat -c %a /run/blksnap /run/blksnap/state
    blksnapctl daemon stop
    wait`;
  const out = await run(["bash", "-e", "-c", script], { cwd: REPOSITORY, timeLimitMs: LIMIT_MS });
  assert.match(out, /^blksnapd .*: 0 devices, 0 snapshots$/m);
  assert.match(out, /^755\n700$/m);
  assert.is(statSync("/run/blksnap").mode & 0o777, 0o755);
});

test.run();
