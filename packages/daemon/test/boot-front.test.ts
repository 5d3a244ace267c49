/** The front to which boot-front leads a mount, what it waits for, and that it ends in all cases. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";

const PROGRAM = join(import.meta.dirname, "../libexec/boot-front");
const test = suite("boot-front");
const ORIGINALS = { "dm-0": "253:0", sda: "8:0", sdb: "8:16" };

let root: string;
const at = (...path: string[]): string => join(root, ...path);
function write(path: string, text: string): void {
  mkdirSync(dirname(at(path)), { recursive: true });
  writeFileSync(at(path), text);
}
function link(path: string, target: string): void {
  mkdirSync(dirname(at(path)), { recursive: true });
  rmSync(at(path), { force: true });
  symlinkSync(target, at(path));
}

/** In the form of --print-config. */
function configure(...devices: readonly (readonly [device: string, waitSeconds: number])[]): void {
  const lines = devices.map(
    ([device, wait]) =>
      `\n[[device]]      # x:1\ndevice = "${device}"\npersistent = true\nwait-seconds = ${wait}\n`,
  );
  write(
    "run/blksnap-boot/config",
    `# read: x\n[daemon]\nreactors = 1   # default\n${lines.join("")}`,
  );
}

test.before.each(() => {
  root = mkdtempSync(join(tmpdir(), "blksnap-boot-front-"));
  for (const [name, number] of Object.entries(ORIGINALS)) {
    write(`dev/${name}`, "");
    write(`sys/devices/${name}/dev`, `${number}\n`);
    link(`sys/class/block/${name}`, `../../devices/${name}`);
  }
  write("dev/sda1", "");
  write("sys/devices/sda/sda1/dev", "8:1\n");
  write("sys/devices/sda/sda1/partition", "1\n");
  link("sys/class/block/sda1", "../../devices/sda/sda1");
  for (const name of ["dev/vg/a", "dev/mapper/vg-a", "dev/disk/by-uuid/1"])
    link(name, at("dev/dm-0"));
  link("dev/disk/by-partuuid/p", at("dev/sda1"));
  link("dev/disk/by-id/disk", at("dev/sda"));
});
test.after.each(() => rmSync(root, { recursive: true }));

/** The front and links that the daemon creates for an original while it starts. */
const attached = (number: string): string =>
  `mkdir -p $R/run/blksnap-udev/fronts; echo ${number} > $R/run/blksnap-udev/fronts/ublkb7; ` +
  `: > $R/dev/ublkb7; : > $R/dev/ublkb7p1;`;

interface Given {
  readonly marginSeconds?: number;
  /** Shell commands in place of a daemon that attaches the device. */
  readonly blksnapctl?: string;
}

const REFUSED = "echo 'blksnapctl: no, never [DEVICE_IS_OURS]' >&2; exit 1";

function program(path: string, log: string, commands: string): void {
  write(path, `#!/bin/sh\nR=${root}\necho "$*" >> $R/${log}\n${commands}\n`);
  chmodSync(at(path), 0o755);
}

/** @param systemctl shell commands in place of the start of the daemon */
function bootFront(
  device: string,
  systemctl: string,
  { marginSeconds = 60, blksnapctl = REFUSED }: Given = {},
) {
  program("bin/systemctl", "asked", systemctl);
  program("usr/bin/blksnapctl", "told", blksnapctl);
  const env = {
    PATH: `${at("bin")}:${process.env["PATH"]}`,
    BLKSNAP_BOOT_ROOT: root,
    BLKSNAP_BOOT_MARGIN_SECONDS: String(marginSeconds),
    BLKSNAP_BOOT_BUSY_SECONDS: "600",
  };
  const { status, stderr } = spawnSync("sh", [PROGRAM, device], { env, encoding: "utf8" });
  assert.is(status, 0, stderr);
  const leads = existsSync(at("run/blksnap-boot", dirname(device)))
    ? readlinkSync(at("run/blksnap-boot", device))
    : undefined;
  const asked = existsSync(at("asked")) ? readFileSync(at("asked"), "utf8") : "";
  return { leads, said: stderr, asked };
}

test("a device that is not configured is used as it is, at once", () => {
  configure(["/dev/sdb", 30], ["/dev/none", 30], ["/dev/sda", 30]);
  assert.equal(bootFront("/dev/vg/a", ""), { leads: "/dev/vg/a", said: "", asked: "" });
  assert.equal(bootFront("/dev/none", ""), { leads: "/dev/none", said: "", asked: "" });
  assert.equal(bootFront("/dev/disk/by-uuid/1", ""), { leads: undefined, said: "", asked: "" });
});

test("if the configuration was not readable, the daemon's start decides", () => {
  const { leads, said } = bootFront("/dev/vg/a", "exit 1");
  assert.is(leads, "/dev/vg/a");
  assert.match(said, "blksnapd has not attached it");
  for (const [name, number, front] of [
    ["/dev/vg/a", "253:0", "/dev/ublkb7"],
    ["/dev/disk/by-partuuid/p", "8:0", "/dev/ublkb7p1"],
    ["/dev/disk/by-partuuid/p", "8:1", "/dev/ublkb7"],
  ] as const) {
    assert.is(bootFront(name, attached(number)).leads, front);
    rmSync(at("run/blksnap-udev"), { recursive: true });
  }
  write("run/blksnap-boot/config", "[daemon]\n");
  rmSync(at("asked"));
  assert.equal(bootFront("/dev/vg/a", ""), { leads: "/dev/vg/a", said: "", asked: "" });
});

test("a device that is configured by any name is mounted by its front", () => {
  for (const name of ["/dev/vg/a", "/dev/mapper/vg-a", "/dev/dm-0"]) {
    configure(["/dev/sda", 30], [name, 30], ["/dev/sdb", 0]);
    // The daemon continues to wait for another device.
    const { leads, said, asked } = bootFront("/dev/vg/a", `${attached("253:0")} exec sleep 60`);
    assert.equal([leads, said], ["/dev/ublkb7", ""], name);
    assert.is(asked, "--quiet start blksnapd.service\n");
    for (const path of ["run/blksnap-udev", "asked"]) rmSync(at(path), { recursive: true });
  }
});

test("the front of another original is not taken", () => {
  configure(["/dev/vg/a", 30]);
  const { leads, said } = bootFront("/dev/vg/a", attached("8:16"));
  assert.is(leads, "/dev/vg/a");
  assert.match(said, "not tracked: blksnapd has not attached it");
});

test("a partition of a configured disk is that of its front", () => {
  configure(["/dev/disk/by-id/disk", 30]);
  assert.is(bootFront("/dev/disk/by-partuuid/p", attached("8:0")).leads, "/dev/ublkb7p1");
});

test("a mount by UUID waits until udev's link leads to the front", () => {
  configure(["/dev/vg/a", 30]);
  const late = `${attached("253:0")} { sleep 1; ln -sfn $R/dev/ublkb7 $R/dev/disk/by-uuid/1; } &`;
  assert.equal(bootFront("/dev/disk/by-uuid/1", late).said, "");
  assert.is(readlinkSync(at("dev/disk/by-uuid/1")), at("dev/ublkb7"));
});

test("a link that leads to a front already needs no wait", () => {
  configure(["/dev/vg/a", 30]);
  write("run/blksnap-udev/fronts/ublkb7", "253:0\n");
  write("dev/ublkb7", "");
  link("sys/class/block/ublkb7", "../../devices/sdb");
  link("dev/disk/by-uuid/1", at("dev/ublkb7"));
  assert.equal(bootFront("/dev/disk/by-uuid/1", ""), { leads: undefined, said: "", asked: "" });
});

test("of two fronts with one UUID udev's link leads to either", () => {
  configure(["/dev/vg/a", 3600]);
  for (const name of ["ublkb8", "ublkb8p1"]) {
    write("run/blksnap-udev/fronts/ublkb8", "8:16\n");
    write(`dev/${name}`, "");
    link("dev/disk/by-uuid/1", at("dev/dm-0"));
    const { said } = bootFront(
      "/dev/disk/by-uuid/1",
      `${attached("253:0")} ln -sfn $R/dev/${name} $R/dev/disk/by-uuid/1`,
      { marginSeconds: -3599 },
    );
    assert.is(said, "", name);
    rmSync(at("run/blksnap-udev"), { recursive: true });
  }
});

test("a device that is configured by UUID and already attached is mounted by its front", () => {
  configure(["/dev/disk/by-uuid/1", 30]);
  write("run/blksnap-udev/fronts/ublkb7", "253:0\n");
  write("dev/ublkb7", "");
  link("dev/disk/by-uuid/1", at("dev/ublkb7"));
  assert.equal(bootFront("/dev/vg/a", "exit 1").leads, "/dev/ublkb7");
  // By another link to its content, which udev has not moved yet.
  link("dev/disk/by-label/x", at("dev/dm-0"));
  bootFront("/dev/disk/by-label/x", "ln -sfn $R/dev/ublkb7 $R/dev/disk/by-label/x; exit 1");
  assert.is(readlinkSync(at("dev/disk/by-label/x")), at("dev/ublkb7"));
});

test("if a daemon cannot start, or refuses the device, nothing waits", () => {
  configure(["/dev/vg/a", 3600]);
  const failed = bootFront("/dev/vg/a", "exit 1");
  assert.is(failed.leads, "/dev/vg/a");
  assert.match(failed.said, "blksnapd has not attached it. See blksnapctl status");
  assert.not.ok(existsSync(at("told")), "nothing waits to be notified");
  const refused = bootFront("/dev/vg/a", "exit 0");
  assert.is(refused.leads, "/dev/vg/a");
  assert.match(refused.said, "has not attached it: blksnapctl: no, never [DEVICE_IS_OURS]. See");
});

test("a device that appears late is attached as configured before it is mounted", () => {
  for (const [wanted, configured, number, front, words] of [
    ["/dev/vg/a", "/dev/mapper/vg-a", "253:0", "/dev/ublkb7", "--persistent "],
    ["/dev/disk/by-partuuid/p", "/dev/disk/by-id/disk", "8:0", "/dev/ublkb7p1", ""],
  ] as const) {
    configure(["/dev/sdb", 3600], [configured, 0], ["/dev/none", 3600]);
    if (words === "") {
      const path = "run/blksnap-boot/config";
      write(
        path,
        readFileSync(at(path), "utf8").replaceAll("persistent = true", "persistent = false"),
      );
    }
    const { leads, said } = bootFront(wanted, "exit 0", { blksnapctl: attached(number) });
    assert.equal([leads, said], [front, ""]);
    assert.is(readFileSync(at("told"), "utf8"), `attach --front ${words}--device ${configured}\n`);
    for (const path of ["run/blksnap-udev", "told"]) rmSync(at(path), { recursive: true });
  }
});

test("the attach of a device that a scan holds for a moment is retried", () => {
  configure(["/dev/vg/a", 0]);
  const busy = `echo 'it is held [DEVICE_BUSY]' >&2; [ "$(wc -l < $R/told)" = 3 ] || exit 1;`;
  const { leads, said } = bootFront("/dev/vg/a", "exit 0", {
    marginSeconds: 600,
    blksnapctl: `${busy} ${attached("253:0")}`,
  });
  assert.equal([leads, said], ["/dev/ublkb7", ""]);
});

test("the wait for a hanging daemon is as long as configured", () => {
  configure(["/dev/vg/a", 1]);
  const { leads, said } = bootFront("/dev/vg/a", "exec sleep 60", { marginSeconds: 0 });
  assert.is(leads, "/dev/vg/a");
  assert.match(said, "it was waited for long enough");
  const link = bootFront("/dev/disk/by-uuid/1", attached("253:0"), { marginSeconds: 0 });
  assert.match(link.said, "by-uuid/1 does not lead to its front /dev/ublkb7, which is there");
});

test.run();
