/** Runs a command in a fresh VM. */
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { acceleration, EMULATED } from "./accel.mjs";
import { guestInitramfs } from "./guest.mjs";
import { ensureKernel } from "./kernel.mjs";
import { startQemu, superviseQemu } from "./supervise.mjs";
import { startUml, umlKernel } from "./uml.mjs";
import { startVirtiofsd } from "./virtiofsd.mjs";

const BOOT_ATTEMPTS = 3;
/**
 * Emulators before qemu 8.1 can keep a breakpoint that the guest's kernel set and removed again while it patched its own code
 * (Linux, arch/x86/kernel/alternative.c): about one boot in a hundred meets it, and a running guest now and then. Only
 * the kernel writes its text, so nothing that runs in the guest can be the cause.
 */
const EMULATOR_FAULT = /Oops: int3: /;
const KVM_PROBE_LIMIT_MS = 10_000;

function isEmulatorFault({ accel }, { status, aborted, console }) {
  return accel === EMULATED && status === null && !aborted && EMULATOR_FAULT.test(console);
}

function readDmesg(shareDir) {
  try {
    return readFileSync(join(shareDir, "dmesg.txt"), "utf8");
  } catch {
    return "";
  }
}

function temporaryFolder(prefix) {
  return mkdtempSync(join(realpathSync(tmpdir()), prefix));
}

function withDefaults(given) {
  return {
    cwd: process.cwd(),
    env: {},
    kernelOptions: [],
    timeLimitMs: 600_000,
    memoryMib: 4096,
    cpus: 2,
    verbose: false,
    shell: false,
    onStdout: (chunk) => process.stdout.write(chunk),
    onStderr: (chunk) => process.stderr.write(chunk),
    onConsole: () => {},
    onProgress: () => {},
    ...given,
    disks: (given.disks ?? []).map((disk) =>
      disk.path === undefined ? disk : { ...disk, path: resolve(disk.path) },
    ),
  };
}

/** One boot. The servers end with their emulator, so each boot has its own. */
async function bootOnce(options) {
  const runFolder = temporaryFolder("blksnap-vm-run-");
  const servers = [];
  try {
    if (options.uml) return await superviseQemu(startUml({ ...options, runFolder }), options);
    const initramfsPath = join(runFolder, "initramfs");
    writeFileSync(initramfsPath, guestInitramfs(options));
    servers.push(startVirtiofsd({ tag: "host", source: "/", runFolder, readOnly: true }));
    servers.push(
      startVirtiofsd({ tag: "share", source: options.shareDir, runFolder, readOnly: false }),
    );
    await Promise.all(servers.map((server) => server.ready));
    const sockets = { host: servers[0].socketPath, share: servers[1].socketPath };
    return await superviseQemu(startQemu({ ...options, initramfsPath, sockets }), options);
  } finally {
    for (const { child } of servers) child.kill("SIGKILL");
    rmSync(runFolder, { recursive: true, force: true });
  }
}

/** Reboots after a crash that cannot have affected the command, because it had not started. */
async function bootUntilReady(options) {
  for (let attempt = 1; ; attempt++) {
    const outcome = await bootOnce(options);
    const crashed = !outcome.ready && !outcome.aborted && !outcome.timedOut;
    const again = crashed && outcome.qemuErrors === "" && attempt < BOOT_ATTEMPTS;
    if (!again) return outcome;
    options.onProgress("the guest did not come up; retrying");
  }
}

async function bootsWith(accel, options) {
  options.onProgress("trying whether KVM works here (once)");
  const outcome = await bootOnce({
    ...options,
    accel,
    command: ["true"],
    disks: [],
    shell: false,
    timeLimitMs: KVM_PROBE_LIMIT_MS,
    onStdout: () => {},
    onStderr: () => {},
    onConsole: () => {},
  });
  return outcome.status === 0;
}

/**
 * Boots a VM over the host's file tree, runs the command in it and ends it.
 *
 * @param {object} given
 * @param {string[]} given.command
 * @param {string} [given.cwd] folder of the command
 * @param {Record<string, string>} [given.env] variables on top of the guest's own
 * @param {number} [given.timeLimitMs]
 * @param {string} [given.kernelSeries] "6.12" unless given, or "newest": of the distribution's backports
 * @param {string[]} [given.kernelOptions] on top of the usual ones
 * @param {boolean} [given.uml] on User Mode Linux, without disks
 * @param {number} [given.memoryMib]
 * @param {number} [given.cpus]
 * @param {{path?: string, nbdSocket?: string, serial?: string, readOnly?: boolean}[]} [given.disks] raw images, or Unix
 *   sockets of NBD servers; /dev/vda onwards
 * @param {string} [given.shareDir] folder that the guest may write; without it a fresh one, which goes away after a run that
 *   ended by itself
 * @param {AbortSignal} [given.signal] ends the VM at once, like a power cut
 * @param {(chunk: Buffer) => void} [given.onStdout] default: this process's own output; the same for onStderr
 * @returns {Promise<{status: number | null, timedOut: boolean, aborted: boolean, emulatorFault: boolean, dmesg: string,
 *   console: string, qemuErrors: string, shareDir: string}>} status is null when the command did not end by itself;
 *   emulatorFault says that the emulator broke the guest's kernel, and what ran there is to be run again
 */
export async function runInVm(given) {
  const defaults = withDefaults(given);
  const kernel = given.uml ? umlKernel() : ensureKernel(defaults);
  if (given.shareDir) mkdirSync(given.shareDir, { recursive: true });
  const shareDir = given.shareDir
    ? realpathSync(given.shareDir)
    : temporaryFolder("blksnap-vm-share-");
  const options = { ...defaults, kernel, shareDir };
  if (!given.uml) options.accel = await acceleration(kernel, (accel) => bootsWith(accel, options));
  rmSync(join(shareDir, "dmesg.txt"), { force: true });
  const outcome = await bootUntilReady(options);
  const emulatorFault = isEmulatorFault(options, outcome);
  const result = { ...outcome, emulatorFault, dmesg: readDmesg(shareDir), shareDir };
  const hasEnded = outcome.status !== null || outcome.aborted;
  if (!given.shareDir && hasEnded) rmSync(shareDir, { recursive: true, force: true });
  return result;
}
