/** Kinds of volumes, and how each is made, removed, and read in an image. */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const KEY = "/run/stacks.key";

const NO_ZERO = ["--yes", "--wipesignatures", "n"];

/** @throws Error with what the command said */
export function run(command, ...args) {
  const { stdout, stderr, status, error } = spawnSync(command, args, { encoding: "utf8" });
  if (status === 0) return stdout;
  throw new Error(`${[command, ...args].join(" ")}: ${error ?? `${status} ${stdout}${stderr}`}`);
}

export const volume = (name, ...words) => {
  // LVM refuses the words for a pool.
  const first = words.includes("thin-pool") ? ["--yes"] : NO_ZERO;
  run("lvcreate", ...first, "--name", name, ...words);
  run("udevadm", "settle");
};

/**
 * What a stack is made of.
 * - `make(sizeMib)`, `remove()`: of the volume, its group exists
 * - `tracked`: the node that is attached; `used`: where the file system is
 * - `view(image, isReplayed)`: where its file system is in an image, whose log a mount may have to replay; `close()`
 *   ends that
 */
const plain = (name, ...words) => ({
  tracked: `/dev/st/${name}`,
  used: `/dev/st/${name}`,
  make: (sizeMib) => volume(name, "--size", `${sizeMib}M`, ...words),
  remove: () => run("lvremove", "--yes", `st/${name}`),
  view: (image) => image,
  close: () => undefined,
});

const luks = {
  ...plain("luks", "st"),
  used: "/dev/mapper/opened",
  make(sizeMib) {
    volume("luks", "--size", `${sizeMib}M`, "st");
    writeFileSync(KEY, "a key of this test");
    const quick = ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    run("cryptsetup", "luksFormat", "--batch-mode", ...quick, "/dev/st/luks", KEY);
    run("cryptsetup", "open", "--key-file", KEY, "/dev/st/luks", "opened");
  },
  remove() {
    run("cryptsetup", "close", "opened");
    run("lvremove", "--yes", "st/luks");
  },
  view(image, isReplayed) {
    const words = isReplayed ? [] : ["--readonly"];
    run("cryptsetup", "open", ...words, "--key-file", KEY, image, "image");
    return "/dev/mapper/image";
  },
  close: () => run("cryptsetup", "close", "image"),
};

/** A node of dmsetup, which LVM does not know. */
const mapped = {
  tracked: "/dev/mapper/mapped",
  used: "/dev/mapper/mapped",
  make(sizeMib) {
    volume("base", "--size", `${sizeMib}M`, "st");
    const sectors = run("blockdev", "--getsz", "/dev/st/base").trim();
    run("dmsetup", "create", "mapped", "--table", `0 ${sectors} linear /dev/st/base 0`);
    run("udevadm", "settle");
  },
  remove() {
    run("dmsetup", "remove", "--retry", "mapped");
    run("lvremove", "--yes", "st/base");
  },
  view: (image) => image,
  close: () => undefined,
};

const thin = {
  ...plain("thin"),
  make(sizeMib) {
    volume("pool", "--type", "thin-pool", "--size", "900M", "st");
    volume("thin", "--virtualsize", `${sizeMib}M`, "--thinpool", "st/pool");
  },
  remove: () => run("lvremove", "--yes", "st/pool"),
};

/** One disk that is reached by two paths, and a group on it. */
const multipath = {
  ...plain("many"),
  tracked: "/dev/many/many",
  used: "/dev/many/many",
  make(sizeMib) {
    run("modprobe", "scsi_debug", "dev_size_mb=400", "add_host=2", "per_host_store=0", "delay=0");
    run("udevadm", "settle");
    const disks = run("lsblk", "-dnpo", "NAME,MODEL")
      .split("\n")
      .filter((line) => line.includes("scsi_debug"));
    const [one, other] = disks.map((line) => line.split(" ")[0]);
    const numbers = [one, other].map((path) =>
      readFileSync(`/sys/block/${path.slice(5)}/dev`, "utf8").trim(),
    );
    const sectors = run("blockdev", "--getsz", one).trim();
    const paths = numbers.map((number) => `round-robin 0 1 1 ${number} 1`).join(" ");
    run(
      "dmsetup",
      "create",
      "mpath",
      "--uuid",
      "mpath-test",
      "--table",
      `0 ${sectors} multipath 0 0 2 1 ${paths}`,
    );
    run("vgcreate", "many", "/dev/mapper/mpath");
    run("lvcreate", ...NO_ZERO, "--name", "many", "--size", `${sizeMib}M`, "many");
    run("udevadm", "settle");
    this.path = numbers[0];
  },
  remove() {
    run("vgremove", "--yes", "many");
    run("dmsetup", "remove", "--retry", "mpath");
    run("modprobe", "-r", "scsi_debug");
  },
  /** One path goes and comes. */
  meanwhile(round) {
    run(
      "dmsetup",
      "message",
      "mpath",
      "0",
      `${round % 2 === 0 ? "fail" : "reinstate"}_path ${this.path}`,
    );
  },
};

export const STACKS = {
  "dm-linear": { stack: mapped },
  linear: { stack: plain("linear", "st") },
  striped: { stack: plain("striped", "--stripes", "2", "st") },
  thin: { stack: thin, needs: ["dm-thin-pool"] },
  "LUKS2 on LVM": { stack: luks, needs: ["dm-crypt"] },
  "LVM on multipath": {
    stack: multipath,
    needs: ["dm-multipath", "dm-round-robin", "scsi_debug", "sd_mod"],
  },
};
