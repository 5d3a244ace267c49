/** A machine that boots from a disk: User Mode Linux, or the emulator with a stock kernel. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { EMULATED } from "../../tools/vm/lib/accel.mjs";
import { cpioArchive } from "../../tools/vm/lib/cpio.mjs";
import { requireProgram } from "../../tools/vm/lib/host.mjs";
import { ensureKernel, modulesInOrder } from "../../tools/vm/lib/kernel.mjs";
import { umlKernel } from "../../tools/vm/lib/uml.mjs";

const MEMORY_MIB = 2048;
/** Emulated, or on a busy host, a volume may come later than the 90 seconds for which systemd waits. */
const PATIENT = "systemd.default_device_timeout_sec=900";
const SHARED_WORDS = ["rw", "panic=-1", "oops=panic", "systemd.show_status=1", PATIENT];
const ROOT_MODULES = ["virtio_blk", "ext4"];

const QEMU_INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in MODULES; do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t ext4 /dev/vda /newroot
/bin/busybox mount --move /dev /newroot/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /newroot /sbin/init
`;

function uml(folder) {
  const kernel = umlKernel();
  return {
    kernel,
    root: "/dev/ubda",
    command: (disks, words) => [
      kernel.image,
      ...[`mem=${MEMORY_MIB}M`, "ncpus=2", "seccomp=auto", `uml_dir=${folder}/`],
      ...disks.map((path, index) => `ubd${index}=${path}`),
      ...["root=/dev/ubda", "rootfstype=ext4", "con=null", "con0=null,fd:1", "ssl=null"],
      ...SHARED_WORDS,
      ...words,
    ],
  };
}

function qemu(folder) {
  const kernel = ensureKernel({ onProgress: console.log });
  const modules = modulesInOrder(kernel, ROOT_MODULES);
  const names = modules.map((path) => basename(path));
  const init = QEMU_INIT.replace("MODULES", names.map((name) => basename(name, ".ko")).join(" "));
  const files = Object.fromEntries(modules.map((path) => [basename(path), readFileSync(path)]));
  const busybox = readFileSync(requireProgram("busybox", "busybox-static"));
  const initramfs = join(folder, "initramfs");
  const folders = ["bin", "dev", "proc", "newroot"];
  writeFileSync(initramfs, cpioArchive(folders, { "bin/busybox": busybox, init, ...files }));
  return {
    kernel,
    root: "/dev/vda",
    command: (disks, words) => [
      requireProgram("qemu-system-x86_64", "qemu-system-x86"),
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
      ...["-machine", "q35", "-m", String(MEMORY_MIB), "-smp", "2", ...EMULATED],
      ...disks.flatMap((path) => ["-drive", `if=virtio,format=raw,cache=unsafe,file=${path}`]),
      ...["-kernel", kernel.image, "-initrd", initramfs, "-append"],
      ["console=ttyS0", "tsc=reliable", "mitigations=off", ...SHARED_WORDS, ...words].join(" "),
    ],
  };
}

/** @param {"uml" | "qemu"} kind */
export function makeMachine(kind, folder) {
  return kind === "uml" ? uml(folder) : qemu(folder);
}

/**
 * One life of the machine.
 * @returns {Promise<boolean>} whether it has ended by itself
 */
export function boot(command, consolePath, limitMs) {
  const output = openSync(consolePath, "w");
  const [program, ...args] = command;
  return new Promise((done, fail) => {
    // The memory of User Mode Linux is a file there.
    const env = { ...process.env, TMPDIR: "/dev/shm" };
    const child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], {
      stdio: ["ignore", output, output],
      env,
    });
    closeSync(output);
    let isOver = true;
    const timer = setTimeout(() => {
      isOver = false;
      child.kill("SIGKILL");
    }, limitMs);
    child.on("error", fail);
    child.on("exit", () => {
      clearTimeout(timer);
      done(isOver);
    });
  });
}
