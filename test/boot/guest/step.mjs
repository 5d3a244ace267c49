/**
 * One boot of the test: notes what has come up, does what the step is for, and ends the machine.
 * The kernel's command line has blksnap.step=NAME.ACTION; what is noted is in /root/test/NAME.json.
 */
import { spawnSync } from "node:child_process";
import { appendFileSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { changes } from "./changes.mjs";
import { images } from "./images.mjs";
import { cutLive, lookAfterCut } from "./live-cut.mjs";
import { armNbd, firstNbdClient } from "./nbd.mjs";
import { changePackage } from "./package.mjs";
import { scrape } from "./scrape.mjs";
import { stacks } from "./stacks.mjs";
import { assertNames } from "./udev.mjs";

const WORDS = readFileSync("/proc/cmdline", "utf8");
const [, name, action] = /blksnap\.step=(\w+)\.(\w+)/.exec(WORDS);

const wordOf = (key) => new RegExp(`blksnap\\.${key}=(\\S+)`).exec(WORDS)?.[1];

function run(command, ...args) {
  const { stdout, stderr, status } = spawnSync(command, args, { encoding: "utf8" });
  return { stdout, said: `${stdout}${stderr}`, status };
}

function json(command, ...args) {
  const { stdout } = run(command, ...args);
  try {
    return JSON.parse(stdout);
  } catch {
    return null;
  }
}

const contents = (path) => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
};

/** Where the kernel has dm-crypt. */
const hasCrypt = contents("/etc/crypttab")?.includes("below") === true;
const PLACES = ["uuid", "label", "name", "unit", "other"]
  .concat(hasCrypt ? ["above", "below"] : [])
  .map((place) => `/srv/${place}`)
  .concat("/home");

/** Where it is mounted on demand, systemd's own mount is below it. */
const sourceOf = (place) => run("findmnt", "-no", "SOURCE", place).stdout.trim().split("\n").at(-1);

function look() {
  // Before what is mounted is asked for: reading mounts it.
  const written = Object.fromEntries(PLACES.map((place) => [place, contents(`${place}/written`)]));
  const status = json("blksnapctl", "status", "--json");
  const devices = status?.trackers?.map(({ device }) => device) ?? [];
  const show = (unit, property) => run("systemctl", "show", "-P", property, unit).stdout.trim();
  return {
    mounts: Object.fromEntries(PLACES.map((place) => [place, sourceOf(place)])),
    below: hasCrypt
      ? readdirSync(`/sys/class/block/${realpathSync("/dev/mapper/below").slice(5)}/slaves`)
      : null,
    swap: realpathSync("/dev/disk/by-uuid/33333333-3333-3333-3333-333333333333"),
    contents: written,
    failed: run("systemctl", "--failed", "--plain", "--no-legend").stdout.trim(),
    devices,
    missing: status?.daemon?.configuration?.missing ?? null,
    tracking: Object.fromEntries(
      devices.map((device) => [
        device,
        json("blksnapctl", "cbtinfo", "--device", device, "--json"),
      ]),
    ),
    daemon: {
      state: show("blksnapd.service", "ActiveState"),
      result: show("blksnapd.service", "Result"),
    },
    uptime: contents("/proc/uptime"),
    log: run(
      "journalctl",
      "-b",
      "--no-pager",
      "-o",
      "short-monotonic",
      "-u",
      "blksnapd",
      "-u",
      "blksnap-*",
    ).said,
    before: run("journalctl", "-b", "-1", "--no-pager", "-o", "short-monotonic", "-n", "60").said,
  };
}

function write() {
  for (const place of PLACES) appendFileSync(`${place}/written`, `${name}\n`);
}

/** Those beside the root's, in order. */
const disks = ["b", "c", "d"].map((letter) =>
  [`/dev/ubd${letter}`, `/dev/vd${letter}`].find((path) =>
    contents(`/sys/class/block/${path.slice(5)}/dev`),
  ),
);

/** Stacks, and what is done to them. */
const wanted = () => new RegExp(wordOf("stacks") ?? ".");

const ACTIONS = {
  setup: () => ({ setup: run("sh", "/root/test/setup.sh", disks[0]).said }),
  stacks: () => stacks(disks.slice(1), Number(wordOf("rounds") ?? 1), wanted()),
  changes: () => changes(disks.slice(1), wanted()),
  images: () => images(disks.slice(1), wanted()),
  nbdset: armNbd,
  nbd: firstNbdClient,
  write: () => {
    const seen = look();
    write();
    return seen;
  },
  // Outlives all units, keeps the file system from being unmounted, and writes when systemd's last act tells it to end.
  busy: () => {
    const seen = look();
    write();
    spawnSync("systemd-run", [
      "--property=KillMode=none",
      "sh",
      "-c",
      'cd /srv/uuid; trap "echo late >> written; exit" TERM; while :; do sleep 1; done',
    ]);
    return seen;
  },
  scrape: async () => {
    const seen = look();
    write();
    await scrape();
    return seen;
  },
  cut: () => {
    const seen = look();
    write();
    return { ...seen, ...cutLive() };
  },
  later: () => {
    const seen = look();
    write();
    return { ...seen, ...lookAfterCut() };
  },
  // Attached live, with a writer that systemd ends.
  live: () => {
    const seen = look();
    write();
    const attached = run("blksnapctl", "attach", "--device", "/dev/vg/other");
    assertNames(disks.slice(1));
    const writer = "while :; do date >> /srv/other/load; sync -d /srv/other/load; done";
    spawnSync("systemd-run", ["sh", "-c", writer]);
    return { ...seen, attached: attached.said };
  },
  package: async () => {
    const seen = look();
    write();
    const units = PLACES.filter((place) => place !== "/srv/other").map(
      (place) => `${place.slice(1).replace("/", "-")}.mount`,
    );
    await changePackage(hasCrypt ? [...units, "systemd-cryptsetup@below.service"] : units);
    return seen;
  },
};

let noted;
try {
  noted = await ACTIONS[action]();
} catch (error) {
  noted = { error: String(error?.stack) };
}
writeFileSync(`/root/test/${name}.json`, JSON.stringify(noted));
spawnSync("sync");
if (action === "cut") writeFileSync("/proc/sysrq-trigger", "o");
else spawnSync("systemctl", ["--no-block", "poweroff"]);
