/** `npm run demo`: see --help. */
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { hostHasUblk, runInVm, VmError } from "../vm/index.mjs";
import { Cleanup } from "./lib/cleanup.mjs";
import { REPOSITORY } from "./lib/program.mjs";
import { Screen } from "./lib/screen.mjs";
import { playOverNbd } from "./nbd-scenario.mjs";
import { play } from "./scenario.mjs";

const USAGE = `Usage: npm run demo [-- OPTION...]

Shows the main job of blksnap on real files and checks every one of them: two ext4 volumes go
behind fronts, a snapshot freezes both while a program writes to them, the volumes change, and
the images are compared with what was there at the instant of take. An incremental backup of
one volume is made from changed blocks alone and restored. Nothing is left behind.

Runs on this machine if it has ublk (as root; two image files of 128 MiB in /var/tmp), else in a
VM that it starts by itself. Where neither can be had, fronts and images are NBD exports, which
needs neither ublk nor root: then files are read and written through these, and nothing is mounted.

  --vm      use the VM even if this machine has ublk
  --host    never use the VM
  --nbd     use NBD exports, whatever else there is
  --help

NO_COLOR is honoured. Exit status: 0 if everything was as it should be, 1 if not, 2 for wrong
use, 130 after Ctrl-C.`;

const HERE = fileURLToPath(import.meta.url);
const VM_LIMIT_MS = 1_800_000;
const CONSOLE_LINES_SHOWN = 20;
/** Describes the terminal to the demo in the VM, which cannot see it. */
const WIDTH_VARIABLE = "BLKSNAP_DEMO_COLUMNS";

class UsageError extends Error {}

function parse(words) {
  const flag = { type: "boolean" };
  try {
    const { values } = parseArgs({
      args: words,
      options: { vm: flag, host: flag, nbd: flag, help: { ...flag, short: "h" } },
    });
    if (values.vm && values.host) throw new UsageError("--vm and --host exclude each other");
    if (values.vm && values.nbd) throw new UsageError("--vm and --nbd exclude each other");
    return values;
  } catch (error) {
    throw new UsageError(error.message.split(". ")[0]);
  }
}

function onInterrupt(handler) {
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(name, () => handler(128 + constants.signals[name]));
  }
}

/** The demo itself, on the machine on which this process runs. */
async function runHere(perform) {
  const columns = Number(process.env[WIDTH_VARIABLE] ?? process.stdout.columns ?? 0);
  const screen = new Screen({ columns, environment: process.env });
  const cleanup = new Cleanup();
  let status = 0;
  onInterrupt((signalStatus) => {
    status = signalStatus;
    cleanup.interrupt();
  });
  try {
    await perform(screen, cleanup);
  } catch (error) {
    screen.clearProgress();
    if (status === 0) {
      screen.failure(error.message);
      status = 1;
    } else screen.note("interrupted; cleaning up");
  }
  const left = await cleanup.run();
  for (const text of left) screen.failure(`could not clean up: ${text}`);
  return left.length > 0 && status === 0 ? 1 : status;
}

async function runInGuest() {
  const controller = new AbortController();
  let interrupted = 0;
  onInterrupt((status) => {
    interrupted = status;
    controller.abort();
  });
  process.stdout.write("This machine has no ublk of its own, or --vm was given: starting a VM.\n");
  process.stdout.write("All times are those of the VM, which is slow where it is emulated.\n");
  const columns = process.stdout.isTTY ? String(process.stdout.columns) : undefined;
  const result = await runInVm({
    command: [process.execPath, HERE, "--host"],
    cwd: REPOSITORY,
    env: columns === undefined ? {} : { [WIDTH_VARIABLE]: columns },
    timeLimitMs: VM_LIMIT_MS,
    signal: controller.signal,
    onProgress: (text) => process.stdout.write(`vm: ${text}\n`),
  });
  if (interrupted !== 0) return interrupted;
  if (result.status !== null) return result.status;
  process.stderr.write(lastLines(result.console));
  process.stderr.write(`demo: the VM ${endOf(result)}\n`);
  return 1;
}

function endOf({ timedOut, emulatorFault }) {
  if (timedOut) return `took longer than ${VM_LIMIT_MS / 1000} s`;
  return emulatorFault
    ? "was broken by its emulator (qemu before 8.1): start the demo again"
    : "ended by itself";
}

function lastLines(text) {
  const lines = text.trimEnd().split(/\r?\n/);
  return `${lines.slice(-CONSOLE_LINES_SHOWN).join("\n")}\n`;
}

async function main(words) {
  const given = parse(words);
  if (given.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  if (given.nbd) return runHere(playOverNbd);
  if (given.vm) return runInGuest();
  const hasUblk = hostHasUblk();
  if (hasUblk && process.getuid() === 0) return runHere(play);
  const why = hasUblk ? "only root may use ublk here" : "there is no ublk here";
  if (given.host) return overNbd(why);
  try {
    return await runInGuest();
  } catch (error) {
    // A file of the VM may also belong to another user.
    if (!(error instanceof VmError) && error.syscall === undefined) throw error;
    return overNbd(`${why}, and no VM: ${error.message}`);
  }
}

function overNbd(why) {
  process.stdout.write(`The demo uses NBD exports in place of block devices, as ${why}.\n`);
  return runHere(playOverNbd);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const isUsage = error instanceof UsageError;
  if (!isUsage && !(error instanceof VmError)) throw error;
  process.stderr.write(`demo: ${error.message}${isUsage ? ". See --help" : ""}\n`);
  process.exitCode = isUsage ? 2 : 1;
}
