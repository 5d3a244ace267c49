/** Programs and drivers of the host. */
import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";

const SYSTEM_FOLDERS = [
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
];
/** virtiofsd is not a command for users: distributions keep it outside the search path. */
const VIRTIOFSD_PATHS = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];

/** The search path of this process, with the system folders that a non-login shell may lack. */
export function searchPath() {
  const own = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  return [...new Set([...own, ...SYSTEM_FOLDERS])];
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** @returns {string | undefined} the program's full path */
export function findProgram(name) {
  if (name === "virtiofsd") return VIRTIOFSD_PATHS.find(isExecutable) ?? findInPath(name);
  return findInPath(name);
}

function findInPath(name) {
  return searchPath()
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

const ELF_INTERPRETER_SEGMENT = 3;

/** Whether a program needs no library, as the first one of an initramfs must. */
export function isStaticProgram(path) {
  if (path === undefined) return false;
  const elf = readFileSync(path);
  const headersAt = Number(elf.readBigUInt64LE(32));
  const [headerSize, headerCount] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  for (let index = 0; index < headerCount; index++) {
    const type = elf.readUInt32LE(headersAt + index * headerSize);
    if (type === ELF_INTERPRETER_SEGMENT) return false;
  }
  return true;
}

/** Whether this machine itself can serve ublk devices; loads the driver if that is all it takes. */
export function hostHasUblk() {
  if (existsSync("/dev/ublk-control")) return true;
  const modprobe = findProgram("modprobe");
  if (!modprobe || process.getuid?.() !== 0) return false;
  const result = spawnSync(modprobe, ["-q", "ublk_drv"], { stdio: "ignore", timeout: 10_000 });
  return result.status === 0 && existsSync("/dev/ublk-control");
}

/** An error whose message is for the user, without a stack. */
export class VmError extends Error {}

/** @returns {string} the program's full path; throws a VmError naming the Debian package otherwise */
export function requireProgram(name, debianPackage) {
  const path = findProgram(name);
  if (path) return path;
  throw new VmError(
    `the program "${name}" is missing (Debian package ${debianPackage}); "node tools/setup.mjs" installs it`,
  );
}
