/** `npm run vm`: see --help. */
import { constants } from "node:os";
import { resolve } from "node:path";
import { runInVm, VmError } from "./index.mjs";
import { parseOptions, USAGE, UsageError } from "./lib/options.mjs";

const STATUS_USAGE = 2;
const STATUS_TIME_LIMIT = 124;
const STATUS_VM_FAILED = 125;
const CONSOLE_LINES_SHOWN = 40;
const DEFAULT_LIMIT_MS = 600_000;
const SHELL_LIMIT_MS = 24 * 3600 * 1000;

function say(text) {
  process.stderr.write(`vm: ${text}\n`);
}

function showConsole(result) {
  const lines = result.console.trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES_SHOWN);
  if (lines.join("") !== "")
    process.stderr.write(`--- guest console ---\n${lines.join("\n")}\n---\n`);
}

/** Turns the result into an exit status, and reports failures of the VM itself. */
function report(result, options) {
  if (result.status !== null) return result.status;
  if (result.timedOut) {
    showConsole(result);
    say(
      `time limit of ${options.timeLimitMs / 1000} s reached; kernel log: ${result.shareDir}/dmesg.txt`,
    );
    return STATUS_TIME_LIMIT;
  }
  if (result.aborted) return undefined;
  showConsole(result);
  if (result.qemuErrors) process.stderr.write(result.qemuErrors);
  say(
    result.emulatorFault
      ? "the emulator broke the guest's kernel (qemu before 8.1: Oops: int3): run it again"
      : "the guest ended before the command did (panic, power off or failed start)",
  );
  return STATUS_VM_FAILED;
}

function abortOnSignals() {
  const controller = new AbortController();
  const state = { signal: controller.signal, status: undefined };
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.on(name, () => {
      state.status = 128 + constants.signals[name];
      controller.abort();
    });
  }
  return state;
}

async function main(words) {
  const parsed = parseOptions(words);
  if (parsed.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  if (parsed.shell && parsed.command.length === 0) parsed.command = ["bash", "-l"];
  if (parsed.command.length === 0) throw new UsageError("no command given");

  // npm runs its scripts in the package's folder and tells the caller's own in INIT_CWD, which
  // processes further down inherit although it is no longer theirs.
  const isNpmScript = process.env.npm_lifecycle_event === "vm";
  const cwd = (isNpmScript && process.env.INIT_CWD) || process.cwd();
  const interrupted = abortOnSignals();
  const options = {
    timeLimitMs: parsed.shell ? SHELL_LIMIT_MS : DEFAULT_LIMIT_MS,
    ...parsed,
    cwd,
    disks: parsed.disks.map((disk) => ({ ...disk, path: resolve(cwd, disk.path) })),
    shareDir: parsed.shareDir && resolve(cwd, parsed.shareDir),
    signal: interrupted.signal,
    onConsole: (chunk) => parsed.verbose && process.stderr.write(chunk),
    onProgress: say,
  };
  const result = await runInVm(options);
  return report(result, options) ?? interrupted.status;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof VmError)) throw error;
  say(error.message);
  if (error instanceof UsageError) process.stderr.write(`\n${USAGE}\n`);
  process.exitCode = error instanceof UsageError ? STATUS_USAGE : STATUS_VM_FAILED;
}
