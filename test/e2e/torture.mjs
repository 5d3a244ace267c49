/** Runs only the torture test, for any length: see --help. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const USAGE = `Usage: npm run torture -- [OPTION]...

Kills the daemon at random moments, under verified load and with a snapshot held, in a VM with ublk.
Prints a line per kill, and at the end how long the kernel took to notice, the next daemon to serve,
and the users to wait.

  --kills N     how often (default: 1000)
  --seed TEXT   replays the moments of an earlier run, which printed it
  --host        on this machine instead of a VM: it needs ublk and root, and gets test disks
  --help`;

const RUNNER = join(fileURLToPath(new URL(".", import.meta.url)), "run.mjs");
const KILLS_DEFAULT = 1000;
/** What a kill may take at the most in an emulated VM, and everything around the kills. */
const KILL_LIMIT_S = 30;
const REST_LIMIT_S = 1800;

function fail(text) {
  console.error(`torture: ${text}. See --help`);
  process.exit(2);
}

function options() {
  const flag = { type: "boolean" };
  const text = { type: "string" };
  try {
    return parseArgs({ options: { kills: text, seed: text, host: flag, help: flag } }).values;
  } catch (error) {
    return fail(error.message);
  }
}

const { kills = String(KILLS_DEFAULT), seed, host, help } = options();
if (help) {
  console.log(USAGE);
  process.exit(0);
}
if (!/^[1-9][0-9]{0,6}$/.test(kills)) fail(`--kills: ${kills} is not a number from 1 to 9999999`);
const child = spawn(
  process.execPath,
  [RUNNER, "--only", "^torture\\.mjs$", ...(host ? ["--host"] : [])],
  {
    stdio: "inherit",
    env: {
      ...process.env,
      KILLS: kills,
      E2E_PROGRESS: "1",
      E2E_TIME_LIMIT_S: String(REST_LIMIT_S + Number(kills) * KILL_LIMIT_S),
      ...(seed === undefined ? {} : { SEED: seed }),
    },
  },
);
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(name, () => child.kill(name));
child.on("exit", (status) => process.exit(status ?? 1));
