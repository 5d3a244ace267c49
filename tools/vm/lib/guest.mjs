/** Content of the guest: the initramfs with the run's own settings and command. */
import { readFileSync, realpathSync } from "node:fs";
import { basename } from "node:path";
import { REPOSITORY } from "./cache.mjs";
import { cpioArchive } from "./cpio.mjs";
import { requireProgram, searchPath } from "./host.mjs";
import { modulesInOrder } from "./kernel.mjs";

const BOOT_MODULES = ["overlay", "ublk_drv", "loop"];
const GUEST_FOLDERS = ["bin", "dev", "proc", "sys", "modules", "lower", "upper", "newroot", "keep"];

/** The guest covers these with a tmpfs. */
const COVERED = ["/run", "/tmp", "/var/tmp"];

/**
 * Variables of the caller that the command needs; the others describe the host's session. Certificates are for a
 * network that the guest lacks, and each start of node would read them, which is a third of its time.
 */
const KEPT_VARIABLES =
  /^(NODE_(?!EXTRA_CA_CERTS$).*|CI|LANG|LC_.*|TERM|FORCE_COLOR|NO_COLOR|BLKSNAP_.*)$/;

export function shellQuote(text) {
  return `'${String(text).replaceAll("'", "'\\''")}'`;
}

function isBelow(path, folder) {
  return path.startsWith(`${folder}/`);
}

/** The parents come before their children, so that mounting a parent hides no child. */
export function foldersToKeep(folders) {
  const covered = folders.filter((path) => COVERED.some((top) => isBelow(path, top)));
  const unique = [...new Set(covered)].sort();
  return unique.filter((path) => !unique.some((other) => isBelow(path, other)));
}

export function guestEnvironment({ env, shareDir }) {
  const kept = Object.entries(process.env).filter(([name]) => KEPT_VARIABLES.test(name));
  return {
    ...Object.fromEntries(kept),
    PATH: searchPath().join(":"),
    HOME: "/root",
    USER: "root",
    LOGNAME: "root",
    SHELL: "/bin/sh",
    DM_DISABLE_UDEV: "1",
    ...env,
    BLKSNAP_VM: "1",
    BLKSNAP_VM_SHARE: shareDir,
  };
}

export function commandScript({ command, cwd, env, shareDir }) {
  const exports = Object.entries(guestEnvironment({ env, shareDir })).map(
    ([name, value]) => `export ${name}=${shellQuote(value)}`,
  );
  return [
    ...exports,
    `cd ${shellQuote(cwd)} || exit 125`,
    `exec ${command.map(shellQuote).join(" ")}`,
    "",
  ].join("\n");
}

/** @returns {Buffer} the complete initramfs of one run */
export function guestInitramfs({ kernel, command, cwd, env, shareDir, disks, shell }) {
  const busybox = requireProgram("busybox", "busybox-static");
  const modules = modulesInOrder(
    kernel,
    disks.length > 0 ? [...BOOT_MODULES, "virtio_blk"] : BOOT_MODULES,
  );
  const moduleName = (path) => basename(path, ".ko");
  const settings = {
    VM_SHARE: shareDir,
    VM_MODULES: modules.map(moduleName).join(" "),
    VM_MODULES_DIR: realpathSync(kernel.modulesFolder),
    VM_SHELL: shell ? "1" : "",
  };
  const kept = foldersToKeep([REPOSITORY, cwd, realpathSync(kernel.modulesFolder)]);
  const script = (name) => readFileSync(new URL(`../guest/${name}`, import.meta.url));
  return cpioArchive(GUEST_FOLDERS, {
    "bin/busybox": readFileSync(busybox),
    init: script("init.sh"),
    "main.sh": script("main.sh"),
    "command.sh": commandScript({ command, cwd, env, shareDir }),
    "run.conf": Object.entries(settings)
      .map(([name, value]) => `${name}=${shellQuote(value)}\n`)
      .join(""),
    "keep.list": kept.map((path) => `${path}\n`).join(""),
    ...Object.fromEntries(
      modules.map((path) => [`modules/${moduleName(path)}.ko`, readFileSync(path)]),
    ),
  });
}
