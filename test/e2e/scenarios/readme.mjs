/** The commands of README and guide, unchanged; and the users of a daemon that was started like this. */
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { mapped, sectorsOf } from "../lib/device-mapper.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { makeFileSystem } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

const README = new URL("../../../README.md", import.meta.url);
const GUIDE = new URL("../../../docs/guide.md", import.meta.url);
const REPOSITORY = new URL("../../../", import.meta.url).pathname;
const LOG = "/var/log/blksnapd.log";
const GROUP_ID = 4242;
const LIMIT_MS = 500_000;
const test = scenario(import.meta.url, { daemon: false });

/** The blocks of one language in a section. */
function blocksOf(url, section, language) {
  const text = readFileSync(url, "utf8");
  const start = text.indexOf(`\n## ${section}\n`);
  assert.ok(start >= 0, `${url} has a section "${section}"`);
  const body = text.slice(start + 1, text.indexOf("\n## ", start + 1));
  const blocks = [...body.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)];
  return blocks.flatMap(([, name, block]) => (name === language ? [block] : [])).join("");
}

/** The form of an output: sizes, percentages and offsets differ from run to run, and how many rows have them. */
function formOf(text) {
  const lines = text.replace(/\d+(\.\d+)?( [KMG]iB|%)?/g, "N").split("\n");
  const bare = lines.map((line) => line.trim().replace(/ +/g, " ")).filter((line) => line !== "");
  return bare.filter((line, index) => line !== bare[index - 1]);
}

/** /dev/vg/data with a file system, mounted at /srv/data as on a host that has it in use. */
async function volume(t) {
  const disk = await loopDisk(t, 64 * MIB);
  const { path } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  mkdirSync("/dev/vg");
  symlinkSync(path, "/dev/vg/data");
  t.defer(() => rmSync("/dev/vg", { recursive: true }));
  // Zeroed in advance: otherwise later writes of the kernel would appear in the output.
  await makeFileSystem("zeroed ext4", "/dev/vg/data");
  mkdirSync("/srv/data", { recursive: true });
  await run(["mount", "/dev/vg/data", "/srv/data"]);
}

test('the guide\'s "Quick start", copied', async (t) => {
  await volume(t);
  const commands = blocksOf(GUIDE, "Quick start", "sh");
  for (const verb of ["blksnapd --supervise", "attach", "snapshot_take", "diff", "daemon stop"]) {
    assert.ok(commands.includes(verb), `the section has ${verb}`);
  }
  // It is built already, and nothing can be fetched here.
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

test('"A session" prints what it says', async (t) => {
  await volume(t);
  const session = blocksOf(README, "A session", "console");
  const commands = session.match(/(?<=^# ).*$/gm);
  assert.ok(commands.length >= 6, session);
  t.defer(() => rmSync(LOG, { force: true }));
  const script = [
    "export PATH=$PWD/node_modules/.bin:$PATH",
    "umount /srv/data",
    // Not to the standard output: where a command fails, its end would be waited for.
    `blksnapd >${LOG} 2>&1 &`,
    "blksnapctl --wait=300 version >/dev/null",
    // Like a terminal: each command, and then its output on either stream.
    ...commands.map((command) => `echo '# ${command}'; { ${command}; } 2>&1`),
    "exec >/dev/null",
    "umount /mnt; blksnapctl snapshot_destroy --id $ID",
    "umount /srv/data; blksnapctl detach --device /dev/vg/data; blksnapctl daemon stop; wait",
  ].join("\n");
  const out = await run(["bash", "-e", "-u", "-c", script], {
    cwd: REPOSITORY,
    timeLimitMs: LIMIT_MS,
  });
  assert.equal(formOf(out), formOf(session));
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
    # Not to the standard output: where a command fails, its end would be waited for.
    blksnapd >${LOG} 2>&1 &
    blksnapctl --wait=300 version
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
