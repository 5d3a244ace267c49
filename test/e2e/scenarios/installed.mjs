/** The packages as a user has installed them: the daemon, blksnapctl, and the READMEs' examples. */
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { blocksOf, blocksOfInstalled } from "../../install/examples.mjs";
import { KEPT } from "../../install/kept.mjs";
import { run, start } from "../lib/command.mjs";
import { mapped, sectorsOf } from "../lib/device-mapper.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";

/** Outside of the repository: what a package forgets to name cannot be found above. */
const PROJECT = "/srv/installed";
const LOG = "/var/log/blksnapd.log";
const LIMIT_MS = 600_000;
const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });

/** The project, and /dev/vg/data, which the READMEs speak of. */
async function prepare(t) {
  cpSync(KEPT, PROJECT, { recursive: true, verbatimSymlinks: true });
  t.defer(() => rmSync(PROJECT, { recursive: true }));
  const disk = await loopDisk(t, 64 * MIB);
  const { path } = await mapped(t, [`0 ${await sectorsOf(disk)} linear ${disk} 0`]);
  mkdirSync("/dev/vg");
  t.defer(() => rmSync("/dev/vg", { recursive: true }));
  symlinkSync(path, "/dev/vg/data");
}

const inProject = (words) => run(words, { cwd: PROJECT, timeLimitMs: LIMIT_MS });
const blksnapctl = (...words) => inProject(["node_modules/.bin/blksnapctl", ...words]);

/** Examples for those with ublk, of the installed READMEs and of docs/typescript.md. */
function deviceExamples() {
  const { dependencies } = JSON.parse(readFileSync(join(PROJECT, "package.json"), "utf8"));
  const guide = readFileSync(new URL("../../../docs/typescript.md", import.meta.url), "utf8");
  const blocks = [
    ...blocksOfInstalled(PROJECT, Object.keys(dependencies)),
    ...blocksOf(guide, "typescript"),
  ].filter(({ needsDevice }) => needsDevice);
  for (const { name, code } of blocks) writeFileSync(join(PROJECT, `${name}.mjs`), code);
  const isOfDaemon = ({ code }) => code.includes("@blksnap/client");
  return {
    withDaemon: blocks.filter(isOfDaemon),
    alone: blocks.filter((block) => !isOfDaemon(block)),
  };
}

async function until(condition, what) {
  for (let waited = 0; !(await condition()); waited++) {
    assert.ok(waited < 6_000, `${what} within ten minutes`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** Runs an example; one that waits for an end is given it when it has begun. */
async function runExample({ name, code }) {
  const logPath = join(PROJECT, `${name}.log`);
  const example = start(["node", `${name}.mjs`], { cwd: PROJECT, timeLimitMs: LIMIT_MS, logPath });
  if (code.includes("SIGINT")) {
    await until(() => readFileSync(logPath, "utf8").includes("is ready"), `${name} is ready`);
    example.kill("SIGINT");
  }
  if (code.includes("followEvents")) {
    await until(
      () => readFileSync(logPath, "utf8").includes("writers waited"),
      `${name} has taken`,
    );
    const [{ id }] = JSON.parse(await blksnapctl("snapshot_collect", "--json")).snapshots;
    await blksnapctl("snapshot_destroy", "--id", id);
  }
  await example.succeed();
}

test("npx blksnapd and npx blksnapctl serve, and the examples for a daemon run", async (t) => {
  await prepare(t);
  const { withDaemon } = deviceExamples();
  assert.ok(withDaemon.length >= 2, "the READMEs have examples for a daemon");
  t.defer(() => rmSync(LOG, { force: true }));
  const daemon = start(["npx", "blksnapd"], {
    cwd: PROJECT,
    timeLimitMs: LIMIT_MS,
    logPath: LOG,
  });
  await inProject(["npx", "blksnapctl", "--wait=600", "version"]);
  const front = await blksnapctl("attach", "--device", "/dev/vg/data");
  assert.match(front, "front=/dev/ublkb0");
  for (const example of withDaemon) await runExample(example);
  await blksnapctl("detach", "--device", "/dev/vg/data");
  await blksnapctl("daemon", "stop");
  await daemon.succeed();
});

test("the examples that are servers themselves run", async (t) => {
  await prepare(t);
  const { alone } = deviceExamples();
  assert.ok(alone.length >= 3, "the READMEs have examples of servers");
  for (const example of alone) await runExample(example);
});

test.run();
