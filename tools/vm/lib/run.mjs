/** One run of a command in a fresh VM. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { acceleration } from "./accel.mjs";
import { guestInitramfs } from "./guest.mjs";
import { requireProgram, VmError } from "./host.mjs";
import { ensureKernel } from "./kernel.mjs";
import { CHANNELS, FIRST_CHANNEL_FD, qemuArguments } from "./qemu.mjs";
import { startVirtiofsd } from "./virtiofsd.mjs";

const CONSOLE_KEPT_BYTES = 256 << 10;
const STOP_GRACE_MS = 5_000;

function readDmesg(shareDir) {
  try {
    return readFileSync(join(shareDir, "dmesg.txt"), "utf8");
  } catch {
    return "";
  }
}

function withDefaults(options) {
  return {
    cwd: process.cwd(),
    env: {},
    timeLimitMs: 600_000,
    memoryMib: 4096,
    cpus: 2,
    disks: [],
    verbose: false,
    shell: false,
    onStdout: (chunk) => process.stdout.write(chunk),
    onStderr: (chunk) => process.stderr.write(chunk),
    onConsole: () => {},
    onProgress: () => {},
    ...options,
  };
}

function startQemu(options) {
  const words = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    requireProgram("qemu-system-x86_64", "qemu-system-x86"),
  ];
  words.push(...qemuArguments(options));
  const terminal = options.shell ? "inherit" : "ignore";
  const stdio = [
    terminal,
    options.shell ? "inherit" : "ignore",
    "pipe",
    ...CHANNELS.map(() => "pipe"),
  ];
  const child = spawn(words[0], words.slice(1), { stdio });
  const channel = Object.fromEntries(
    CHANNELS.map((name, index) => [name, child.stdio[FIRST_CHANNEL_FD + index]]),
  );
  for (const stream of Object.values(channel)) stream.on("error", () => {});
  return { child, channel };
}

/** Follows one VM from its start to its end. */
function superviseQemu({ child, channel }, options) {
  const outcome = { status: null, timedOut: false, aborted: false, console: "", qemuErrors: "" };
  const kill = () => child.kill("SIGKILL");
  channel.stdout.on("data", options.onStdout);
  channel.stderr.on("data", options.onStderr);
  channel.console.on("data", (chunk) => {
    outcome.console = (outcome.console + chunk).slice(-CONSOLE_KEPT_BYTES);
    options.onConsole(chunk);
  });
  child.stderr.on("data", (chunk) => {
    outcome.qemuErrors += chunk;
  });

  let lines = "";
  channel.control.on("data", (chunk) => {
    lines += chunk;
    const status = /^status (\d+)$/m.exec(lines);
    if (status) outcome.status = Number(status[1]);
    // All output has left the guest before it says either word, so nothing is lost by ending it here.
    if (status || /^stopped$/m.test(lines)) kill();
  });

  let graceTimer;
  const limitTimer = setTimeout(() => {
    outcome.timedOut = true;
    channel.control.write("stop\n");
    graceTimer = setTimeout(kill, STOP_GRACE_MS);
  }, options.timeLimitMs);
  const abort = () => {
    outcome.aborted = true;
    kill();
  };
  if (options.signal?.aborted) abort();
  options.signal?.addEventListener("abort", abort, { once: true });

  return new Promise((done, failed) => {
    child.on("error", failed);
    child.on("close", () => {
      clearTimeout(limitTimer);
      clearTimeout(graceTimer);
      options.signal?.removeEventListener("abort", abort);
      if (outcome.timedOut || outcome.aborted) outcome.status = null;
      done(outcome);
    });
  });
}

/**
 * Boots a VM over the host's file tree, runs the command in it and ends it.
 *
 * @param {object} given
 * @param {string[]} given.command
 * @param {string} [given.cwd] folder of the command
 * @param {Record<string, string>} [given.env] variables on top of the guest's own
 * @param {number} [given.timeLimitMs]
 * @param {number} [given.memoryMib]
 * @param {number} [given.cpus]
 * @param {{path: string, readOnly?: boolean}[]} [given.disks] raw images, /dev/vda onwards
 * @param {string} [given.shareDir] folder that the guest may write; default: a fresh one, which stays
 * @param {AbortSignal} [given.signal] ends the VM at once, like a power cut
 * @returns {Promise<{status: number | null, timedOut: boolean, aborted: boolean, dmesg: string, console: string, shareDir: string}>}
 *   status is null when the command did not end by itself
 */
export async function runInVm(given) {
  const options = withDefaults(given);
  const kernel = ensureKernel(options);
  const runFolder = mkdtempSync(join(realpathSync(tmpdir()), "blksnap-vm-"));
  if (options.shareDir) mkdirSync(options.shareDir, { recursive: true });
  const shareDir = realpathSync(
    options.shareDir ?? mkdtempSync(join(realpathSync(tmpdir()), "blksnap-vm-share-")),
  );
  const disks = options.disks.map((disk) => ({ ...disk, path: resolve(disk.path) }));
  const servers = [];
  try {
    const initramfsPath = join(runFolder, "initramfs");
    writeFileSync(initramfsPath, guestInitramfs({ ...options, kernel, shareDir, disks }));
    servers.push(startVirtiofsd({ tag: "host", source: "/", runFolder, readOnly: true }));
    servers.push(startVirtiofsd({ tag: "share", source: shareDir, runFolder, readOnly: false }));
    await Promise.all(servers.map((server) => server.ready));
    const sockets = { host: servers[0].socketPath, share: servers[1].socketPath };
    const accel = await acceleration(options);
    const qemu = startQemu({ ...options, accel, kernel, initramfsPath, sockets, disks });
    const outcome = await superviseQemu(qemu, options);
    return { ...outcome, dmesg: readDmesg(shareDir), shareDir };
  } finally {
    for (const { child } of servers) child.kill("SIGKILL");
    rmSync(runFolder, { recursive: true, force: true });
  }
}
