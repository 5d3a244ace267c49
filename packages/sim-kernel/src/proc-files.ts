/** The files of /proc and the directories of a machine after its boot. */
import type { SimMachine } from "./machine.js";
import { type FileSystem, Link, LiveDirectory } from "./nodes.js";

const DIRECTORIES = [
  "/dev/shm",
  "/dev/mapper",
  "/dev/disk",
  "/run/lock",
  "/sys/block",
  "/sys/class/block",
  "/sys/class/ublk-char",
  "/sys/dev/block",
  "/sys/devices/virtual/block",
  "/sys/module/ublk_drv/parameters",
  "/proc/fs",
  "/mnt",
  "/etc",
  "/tmp",
  "/var/lib",
  "/var/tmp",
];

const OWN_MOUNTS = ["20 1 0:1 / / rw - tmpfs tmpfs rw", "21 20 253:0 / /var rw - ext4 /dev/vda rw"];

export function populate(machine: SimMachine, fs: FileSystem): void {
  const { tree } = machine;
  for (const path of DIRECTORIES) tree.makeDirectory(path);
  tree.makeText("/proc/sys/kernel/random/boot_id", () => `${machine.bootId}\n`);
  tree.makeText("/proc/uptime", () => `${(machine.upMs / 1000).toFixed(2)} 0.00\n`);
  tree.makeText("/proc/swaps", () => "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
  tree.makeText(
    "/proc/stat",
    () => `btime ${Math.floor((machine.wallMs - machine.upMs) / 1000)}\n`,
  );
  tree.makeText("/proc/mounts", () => "");
  const own = new LiveDirectory(
    fs,
    (name) => (name === "fd" ? descriptors : undefined),
    () => ["fd"],
  );
  const descriptors = new LiveDirectory(
    fs,
    (name) => {
      const open = machine.runningProcess?.files.get(Number(name));
      if (open === undefined) return undefined;
      return new Link(fs, open.node.links > 0 ? open.path : `${open.path} (deleted)`, open.node);
    },
    () => [...(machine.runningProcess?.files.keys() ?? [])].map(String),
  );
  const proc = tree.directory("/proc");
  proc.set("self", own);
  proc.set(String(process.pid), own);
  for (const who of ["self", "1"]) {
    tree.makeText(`/proc/${who}/mountinfo`, () => {
      return [...OWN_MOUNTS, ...machine.mounts].map((line) => `${line}\n`).join("");
    });
    tree.makeText(`/proc/${who}/mounts`, () => "");
  }
  // A process sees only mounts below its root.
  tree.directory("/proc/1").set("root", new Link(fs, "/"));
}
