/** qemu's command line. */

/** Numbers of the file descriptors through which qemu reaches us, after its own 0 to 2. */
export const CHANNELS = ["console", "stdout", "stderr", "control"];
export const FIRST_CHANNEL_FD = 3;

/**
 * Quick start and little emulation; "panic=-1" with "-no-reboot" makes a panic end qemu, and any oops is one: nothing that
 * a broken kernel says can be trusted. Without "tsc=reliable" the kernel leaves that clock for a slow one when the host
 * held the guest up for long, and patches its code under load for it, which old emulators do not bear (run.mjs).
 */
const KERNEL_OPTIONS = [
  "console=ttyS0",
  "quiet",
  "loglevel=4",
  "panic=-1",
  "oops=panic",
  "tsc=reliable",
  "nokaslr",
  "mitigations=off",
  "init_on_alloc=0",
  "audit=0",
  "selinux=0",
  "apparmor=0",
  "random.trust_cpu=on",
  "cryptomgr.notests",
  "initcall_blacklist=jent_mod_init",
];

function channels() {
  const chardevs = CHANNELS.flatMap((name, index) => [
    "-chardev",
    `socket,id=${name},fd=${FIRST_CHANNEL_FD + index}`,
  ]);
  const ports = CHANNELS.slice(1).flatMap((name, index) => [
    "-device",
    `virtserialport,bus=ports.0,nr=${index + 1},chardev=${name}`,
  ]);
  return [
    ...chardevs,
    "-serial",
    "chardev:console",
    "-device",
    "virtio-serial-pci,id=ports",
    ...ports,
  ];
}

/** For --shell: the caller's terminal as the guest's /dev/hvc0. */
const TERMINAL = [
  ...["-chardev", "stdio,id=terminal,signal=off"],
  ...["-device", "virtconsole,bus=ports.0,nr=0,chardev=terminal"],
];

function fileSystem(tag, socketPath) {
  return [
    "-chardev",
    `socket,id=fs-${tag},path=${socketPath}`,
    "-device",
    `vhost-user-fs-pci,chardev=fs-${tag},tag=${tag}`,
  ];
}

function escaped(path) {
  return path.replaceAll(",", ",,");
}

/**
 * Of an image: flushes end in the host's page cache, which survives the end of qemu. Of a server: it is
 * sees every flush, and decides itself what survives.
 */
function storage({ path, nbdSocket }) {
  return nbdSocket
    ? `cache=writeback,discard=unmap,file.driver=nbd,file.server.type=unix,file.server.path=${escaped(nbdSocket)}`
    : `cache=unsafe,discard=unmap,file=${escaped(path)}`;
}

function disk({ serial, readOnly, ...where }, index) {
  return [
    "-drive",
    `if=none,id=disk${index},format=raw,readonly=${readOnly ? "on" : "off"},${storage(where)}`,
    "-device",
    `virtio-blk-pci,drive=disk${index},serial=${serial ?? `disk${index}`}`,
  ];
}

/** @returns {string[]} */
export function qemuArguments(options) {
  const { accel, kernel, initramfsPath, sockets, memoryMib, cpus, disks, verbose, shell } = options;
  const common = verbose
    ? KERNEL_OPTIONS.filter((word) => word !== "quiet" && !word.startsWith("loglevel"))
    : KERNEL_OPTIONS;
  const kernelOptions = [...common, ...options.kernelOptions];
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "q35,memory-backend=ram", "-m", String(memoryMib), "-smp", String(cpus)],
    ...["-object", `memory-backend-memfd,id=ram,size=${memoryMib}M,share=on`],
    ...accel,
    ...["-kernel", kernel.image, "-initrd", initramfsPath, "-append", kernelOptions.join(" ")],
    ...channels(),
    ...(shell ? TERMINAL : []),
    ...Object.entries(sockets).flatMap(([tag, path]) => fileSystem(tag, path)),
    ...disks.flatMap(disk),
  ];
}
