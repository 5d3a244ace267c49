import { spawn } from "node:child_process";
import { fstatSync, openSync, readFileSync } from "node:fs";
import { keyOfNumber } from "@blksnap/linux-block";
import { SECTOR_BYTES } from "./events.js";
import { OPEN_EXCLUSIVE, OPEN_READ_WRITE, OPEN_UNNAMED_FILE } from "./open-flags.js";
import { FALLOCATE_KEEP_SIZE, FALLOCATE_PUNCH_HOLE, type StoreSystem } from "./system.js";

/** The C library's texts for the errors of preallocation and locking. */
const ERRNO_OF_TEXT: readonly (readonly [string, string])[] = [
  ["No space left on device", "ENOSPC"],
  ["Disk quota exceeded", "EDQUOT"],
  ["not supported", "EOPNOTSUPP"],
  ["File too large", "EFBIG"],
  ["Invalid argument", "EINVAL"],
];

/** Folder for unnamed files in memory. */
const MEMORY_DIRECTORY = "/dev/shm";
/** Exit status of flock(1) when the lock is held. */
const FLOCK_HELD_STATUS = 9;

/**
 * A StoreSystem that needs only node and the util-linux commands fallocate(1) and flock(1), for programs without a ring
 * for these calls. Each call starts a process, so a portion of growth costs milliseconds.
 */
export const commandStoreSystem: StoreSystem = {
  async fallocate(fd, mode, offsetBytes, lengthBytes) {
    const flags = ["--offset", String(offsetBytes), "--length", String(lengthBytes)];
    if ((mode & FALLOCATE_PUNCH_HOLE) !== 0) flags.push("--punch-hole");
    else if ((mode & FALLOCATE_KEEP_SIZE) !== 0) flags.push("--keep-size");
    const { status, output } = await run(fd, "fallocate", [...flags, "/proc/self/fd/3"]);
    if (status !== 0) throw failure("fallocate", output);
  },

  blockDeviceSizeBytes(fd) {
    const key = keyOfNumber(fstatSync(fd).rdev);
    return Number(readFileSync(`/sys/dev/block/${key}/size`, "utf8")) * SECTOR_BYTES;
  },

  createMemoryFile() {
    return openSync(MEMORY_DIRECTORY, OPEN_READ_WRITE | OPEN_UNNAMED_FILE | OPEN_EXCLUSIVE, 0o600);
  },

  async lockFile(fd) {
    // The lock belongs to the open file that the command inherits, so it remains after the command's end.
    const flags = ["--exclusive", "--nonblock", "--conflict-exit-code", String(FLOCK_HELD_STATUS)];
    const { status, output } = await run(fd, "flock", [...flags, "3"]);
    if (status === FLOCK_HELD_STATUS)
      throw withCode("the file is locked by another program", "EAGAIN");
    if (status !== 0) throw failure("flock", output);
  },
};

/** Runs a command with `fd` as its descriptor 3. */
function run(
  fd: number,
  command: string,
  args: readonly string[],
): Promise<{ status: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ["ignore", "ignore", "pipe", fd],
      env: { ...process.env, LC_ALL: "C" },
    });
    let output = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
    // Not the errno: a missing program says nothing about the store.
    child.on("error", (error) => {
      const text = `cannot run ${command}, a program of util-linux: ${error.message}`;
      reject(withCode(text, "ENOSYS"));
    });
    child.on("close", (status) => resolve({ status: status ?? -1, output }));
  });
}

function failure(command: string, output: string): Error {
  const code = ERRNO_OF_TEXT.find(([text]) => output.includes(text))?.[1] ?? "EIO";
  return withCode(output.trim() || `${command} failed`, code);
}

function withCode(message: string, code: string): Error {
  return Object.assign(new Error(message), { code });
}
