/** Servers through which the guest sees folders of the host. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram, requireProgram, VmError } from "./host.mjs";

const START_LIMIT_MS = 120_000;

/**
 * Makes everything below the server read-only for it alone, so that not even a guest that mounts the folder by itself can write
 * to the host. Two places stay writable: the socket's folder and the one where virtiofsd keeps its lock files.
 */
const READ_ONLY_SCRIPT = `
run=$1; shift
mkdir -p /run/virtiofsd && mount -t tmpfs tmpfs /run/virtiofsd && mount --bind "$run" "$run" || exit 125
while read -r _ point type _; do
  case "$type:$point" in proc:*|sysfs:*|cgroup*|dev*:*|*:"$run"|*:/run/virtiofsd) continue ;; esac
  mount -o remount,bind,ro "$point" 2>/dev/null
done < /proc/self/mounts
exec "$@"`;

function readOnlyPrefix(runFolder) {
  const unshare = findProgram("unshare");
  return [
    unshare,
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-c",
    READ_ONLY_SCRIPT,
    "sh",
    runFolder,
  ];
}

/**
 * @param {{tag: string, source: string, runFolder: string, readOnly: boolean}} options
 * @returns {{child: import("node:child_process").ChildProcess, socketPath: string, ready: Promise<void>}}
 */
export function startVirtiofsd({ tag, source, runFolder, readOnly }) {
  const socketPath = join(runFolder, `${tag}.sock`);
  // The tree below a running guest must not change, which the overlay requires anyway; the shared folder may.
  const cache = readOnly ? "always" : "auto";
  const server = [
    requireProgram("virtiofsd", "qemu-system-common"),
    `--socket-path=${socketPath}`,
    ...[
      "-o",
      `source=${source}`,
      "-o",
      "sandbox=chroot",
      "-o",
      `cache=${cache}`,
      "-o",
      "log_level=err",
    ],
  ];
  // A server must not outlive this process, even if that is killed.
  const words = [
    "setpriv",
    "--pdeathsig",
    "KILL",
    ...(readOnly ? readOnlyPrefix(runFolder) : []),
    ...server,
  ];
  const child = spawn(words[0], words.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
  let errors = "";
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  let spawnError;
  child.on("error", (error) => {
    spawnError = error;
  });
  const waitForSocket = async () => {
    const limitMs = performance.now() + START_LIMIT_MS;
    while (!existsSync(socketPath)) {
      if (
        spawnError ||
        child.exitCode !== null ||
        child.signalCode ||
        performance.now() > limitMs
      ) {
        throw new VmError(
          `virtiofsd for ${source} did not start: ${spawnError?.message ?? errors.trim()}`,
        );
      }
      await sleep(5);
    }
  };
  return { child, socketPath, ready: waitForSocket() };
}
