/** Supervises one qemu process from start to end. */
import { spawn } from "node:child_process";
import { requireProgram } from "./host.mjs";
import { CHANNELS, FIRST_CHANNEL_FD, qemuArguments } from "./qemu.mjs";

const CONSOLE_KEPT_CHARACTERS = 256 << 10;
/** How long a guest that reached its time limit may take to save its kernel log. */
const STOP_GRACE_MS = 5_000;
/** A guest that takes longer to start its command hangs, however busy the host is. */
const BOOT_LIMIT_MS = 300_000;

/** @returns {{child: import("node:child_process").ChildProcess, channel: Record<string, import("node:net").Socket>}} */
export function startQemu(options) {
  const emulator = requireProgram("qemu-system-x86_64", "qemu-system-x86");
  // The emulator must not outlive this process, even if that is killed.
  const words = ["setpriv", "--pdeathsig", "KILL", emulator, ...qemuArguments(options)];
  const terminal = options.shell ? "inherit" : "ignore";
  const child = spawn(words[0], words.slice(1), {
    stdio: [terminal, terminal, "pipe", ...CHANNELS.map(() => "pipe")],
  });
  const channel = Object.fromEntries(
    CHANNELS.map((name, index) => [name, child.stdio[FIRST_CHANNEL_FD + index]]),
  );
  for (const stream of Object.values(channel)) stream.on("error", () => {});
  return { child, channel };
}

function collectOutput({ child, channel }, options, outcome) {
  channel.stdout.on("data", options.onStdout);
  channel.stderr.on("data", options.onStderr);
  channel.console.on("data", (chunk) => {
    outcome.console = (outcome.console + chunk).slice(-CONSOLE_KEPT_CHARACTERS);
    options.onConsole(chunk);
  });
  child.stderr.on("data", (chunk) => {
    outcome.qemuErrors += chunk;
  });
}

/** The guest says "ready", "status N" and "stopped" on its control channel. */
function followControl({ child, channel }, outcome) {
  let lines = "";
  channel.control.on("data", (chunk) => {
    lines += chunk;
    outcome.ready ||= /^ready$/m.test(lines);
    const status = /^status (\d+)$/m.exec(lines);
    if (status && !outcome.timedOut) outcome.status = Number(status[1]);
    // All output has left the guest before each of these messages, so ending it here loses nothing.
    if (status || /^stopped$/m.test(lines)) child.kill("SIGKILL");
  });
}

function setLimits({ child, channel }, options, outcome) {
  const kill = () => child.kill("SIGKILL");
  const timers = [];
  const atTimeLimit = () => {
    outcome.timedOut = true;
    if (!outcome.ready) return kill();
    channel.control.write("stop\n");
    timers.push(setTimeout(kill, STOP_GRACE_MS));
  };
  timers.push(setTimeout(atTimeLimit, options.timeLimitMs));
  timers.push(setTimeout(() => outcome.ready || kill(), BOOT_LIMIT_MS));
  const abort = () => {
    outcome.aborted = true;
    kill();
  };
  if (options.signal?.aborted) abort();
  options.signal?.addEventListener("abort", abort, { once: true });
  return () => {
    for (const timer of timers) clearTimeout(timer);
    options.signal?.removeEventListener("abort", abort);
  };
}

/** @returns {Promise<object>} the outcome, once qemu is gone and its output is complete */
export function superviseQemu(qemu, options) {
  const outcome = {
    status: null,
    ready: false,
    timedOut: false,
    aborted: false,
    console: "",
    qemuErrors: "",
  };
  collectOutput(qemu, options, outcome);
  followControl(qemu, outcome);
  const clearLimits = setLimits(qemu, options, outcome);
  return new Promise((done, failed) => {
    qemu.child.on("error", failed);
    qemu.child.on("close", () => {
      clearLimits();
      done(outcome);
    });
  });
}
