/**
 * What blksnap-generator makes of volumes in crypttab, above and below a front, and that units do not wait for each
 * other in a circle.
 */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  endRoot,
  generated,
  hasSystemd,
  root,
  runGenerator,
  setUpRoot,
  unitsOf,
  withoutComments,
} from "./generator-root.js";

const THEIRS = "/usr/lib/systemd/system-generators";
const UNITS = join(import.meta.dirname, "../systemd");
const hasTheirs = ["fstab", "cryptsetup"].every((name) =>
  existsSync(join(THEIRS, `systemd-${name}-generator`)),
);
if (!hasTheirs) console.log("SKIPPED in part: systemd's generators are not here");

const test = suite("order of the boot");
test.before.each(() => {
  setUpRoot();
  putProgram("usr/bin/systemd-cryptsetup");
});
test.after.each(endRoot);

function putProgram(path: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), "");
  chmodSync(join(root, path), 0o755);
}

const openerOf = (volume: string): string => `systemd-cryptsetup@${volume}.service`;

function closing(volume: string, program = "/usr/bin/systemd-cryptsetup"): string {
  return (
    `[Service]\nExecStop=\nExecStop=-/usr/lib/blksnap/end-front /dev/mapper/${volume}\n` +
    `ExecStop=${program} detach '${volume}'\n`
  );
}

/** Units that wait for a front. */
function opened(files: Record<string, string>): string[] {
  return unitsOf(files).filter((unit) => files[`${unit}.d/50-blksnap.conf`]?.includes("After="));
}

test("a volume of crypttab is opened on the front of the device below, and closed after its own front has ended", () => {
  if (!hasSystemd) return;
  const own = (crypttab: string, unit = openerOf("data")): string =>
    withoutComments(generated("", { crypttab })[`${unit}.d/50-blksnap.conf`]);
  const gate = String.raw`blksnap-front@dev-disk-by\x2duuid-12\x2dab.service`;
  assert.is(
    own("my-data UUID=12-ab none luks\n", openerOf(String.raw`my\x2ddata`)),
    `[Unit]\nWants=${gate}\nAfter=${gate}\n${closing("my-data")}`,
  );
  const behind =
    "[Unit]\nWants=blksnap-front@dev-vg-a.service\nAfter=blksnap-front@dev-vg-a.service\n";
  const from = "attach 'data' '/run/blksnap-boot/dev/vg/a'";
  assert.is(
    own("# x\ndata /dev/vg/a /etc/key luks,discard\ndata /dev/vg/b none\n"),
    `${behind}[Service]\nExecStart=\nExecStart=/usr/bin/systemd-cryptsetup ${from} '/etc/key' 'luks,discard'\n${closing("data")}`,
  );
  assert.match(own("data /dev/vg/a"), `${from} 'none' ''\n`);
});

test("a volume is closed after its front has ended even if nothing is attached at boot, or the service was disabled", () => {
  if (!hasSystemd) return;
  const crypttab = "data UUID=12-ab none luks\n";
  const closes = { [`${openerOf("data")}.d/50-blksnap.conf`]: closing("data") };
  const own = (config?: string) =>
    Object.entries(generated("", { crypttab, ...(config !== undefined && { config }) })).map(
      ([path, text]) => [path, withoutComments(text)],
    );
  assert.equal(Object.fromEntries(own("")), closes);
  rmSync(join(root, "etc/systemd"), { recursive: true });
  assert.equal(Object.fromEntries(own()), closes);
});

test("volumes that are open, created at each boot, or need special options do not wait", () => {
  if (!hasSystemd) return;
  mkdirSync(join(root, "dev/mapper"), { recursive: true });
  writeFileSync(join(root, "dev/mapper/open"), "");
  const lines = {
    open: "UUID=1 none luks",
    swapped: "/dev/vg/a /dev/urandom swap",
    temporary: "/dev/vg/a /dev/urandom plain,tmp=xfs",
    initial: "UUID=1 none luks,x-initrd.attach",
    stick: "/dev/vg/a /key:LABEL=stick luks",
    script: "/dev/vg/a none luks,keyscript=/bin/k",
    // systemd's generator mounts this one, and then uses another path.
    header: "/dev/vg/a none luks,header=/h:LABEL=stick",
    quoted: String.raw`/dev/vg/a\040b none luks`,
    file: "/srv/image none luks",
    "specifier%n": "/dev/vg/a none luks",
  };
  const crypttab = Object.entries(lines).map(([name, words]) => `${name} ${words}\n`);
  const files = generated("", { crypttab: crypttab.join("") });
  const { "specifier%n": _, ...others } = lines;
  assert.equal(
    Object.fromEntries(Object.entries(files).map(([path, text]) => [path, withoutComments(text)])),
    Object.fromEntries(
      Object.keys(others).map((name) => [`${openerOf(name)}.d/50-blksnap.conf`, closing(name)]),
    ),
  );
});

test("a volume that the daemon needs is not opened on a front", () => {
  if (!hasSystemd) return;
  const crypttab = "data UUID=1 none luks\nother /dev/vg/b none luks\n";
  const both = ["data", "other"].map(openerOf);
  assert.equal(opened(generated("UUID=2 / ext4 rw 0 1\n", { crypttab })), both);
  for (const where of ["/", "/var", "/var/lib/blksnap"]) {
    const fstab = `/dev/mapper/data ${where} ext4 rw 0 1\n`;
    assert.equal(opened(generated(fstab, { crypttab })), both.slice(1), where);
  }
  // It may lie on any of them, and the gate itself waits for it.
  const usr = "UUID=2 /usr ext4 rw 0 1\n";
  assert.equal(opened(generated(usr, { crypttab })), []);
  writeFileSync(
    join(root, "proc/self/mounts"),
    "/dev/sda1 / ext4 rw 0 0\n/dev/b /usr ext4 rw 0 0\n",
  );
  assert.equal(opened(generated(usr, { crypttab })), both);
});

test("systemd-cryptsetup is called by its path, and left alone if it is missing", () => {
  if (!hasSystemd) return;
  const crypttab = "data /dev/vg/a none luks\n";
  chmodSync(join(root, "usr/bin/systemd-cryptsetup"), 0o644);
  assert.equal(generated("", { crypttab }), {});
  const earlier = "/usr/lib/systemd/systemd-cryptsetup";
  putProgram(earlier.slice(1));
  const [text = ""] = Object.values(generated("", { crypttab }));
  assert.match(text, `\nExecStart=${earlier} attach 'data' `);
  assert.match(text, closing("data", earlier));
});

const FSTAB = `UUID=root / ext4 defaults 0 1
/dev/vg/var /var ext4 defaults 0 2
/dev/mapper/above /srv/above ext4 defaults 0 2
UUID=in-below /srv/below xfs defaults 0 0
/dev/mapper/net /srv/net ext4 _netdev 0 2
LABEL=far /srv/far xfs _netdev,nofail 0 0
host:/export /srv/nfs nfs defaults 0 0
`;
const CRYPTTAB = `above /dev/sdb1 none luks
below /dev/vg/a /etc/key luks
uuid UUID=12-ab none luks,nofail
net /dev/disk/by-path/ip-1-lun-0 none luks,_netdev
lazy PARTUUID=1-2 none luks,noauto
`;

/** Units of ours, of systemd's generators and of our generator, as at boot. @returns the folder */
function bootUnits(): string {
  writeFileSync(join(root, "etc/fstab"), FSTAB);
  writeFileSync(join(root, "etc/crypttab"), CRYPTTAB);
  writeFileSync(join(root, "etc/blksnap/blksnap.toml"), '[[device]]\ndevice = "/dev/vg/a"\n');
  const into = join(root, "units");
  mkdirSync(join(into, "multi-user.target.wants"), { recursive: true });
  const env = {
    PATH: process.env["PATH"],
    SYSTEMD_FSTAB: join(root, "etc/fstab"),
    SYSTEMD_CRYPTTAB: join(root, "etc/crypttab"),
  };
  for (const name of ["fstab", "cryptsetup"]) {
    spawnSync(join(THEIRS, `systemd-${name}-generator`), [into, into, into], { env });
  }
  assert.is(runGenerator(into).status, 0);
  for (const unit of readdirSync(UNITS)) {
    const text = readFileSync(join(UNITS, unit), "utf8");
    writeFileSync(
      join(into, unit),
      text.replace(/\/usr\/(bin\/blksnap\w+|lib\/blksnap\/[\w-]+)/g, "/bin/true"),
    );
  }
  symlinkSync("../blksnapd.service", join(into, "multi-user.target.wants/blksnapd.service"));
  const wanted =
    "multi-user.target network-online.target remote-fs.target remote-cryptsetup.target";
  writeFileSync(
    join(into, "whole.target"),
    `[Unit]\nWants=${wanted} systemd-cryptsetup@lazy.service\nAfter=${wanted}\n`,
  );
  return into;
}

/** Messages about cycles. */
function circlesOf(units: string): string[] {
  const env = { PATH: process.env["PATH"], SYSTEMD_UNIT_PATH: `${units}:` };
  const words = ["verify", "--man=no", join(units, "whole.target")];
  const { status, stderr } = spawnSync("systemd-analyze", words, { env, encoding: "utf8" });
  assert.is.not(status, null);
  return stderr.split("\n").filter((line) => /ordering cycle|deleted to break/.test(line));
}

test("there are no dependency cycles: mounts, crypttab, network and fronts", () => {
  if (!hasSystemd || !hasTheirs || spawnSync("systemd-analyze", ["--version"]).status !== 0) return;
  const units = bootUnits();
  const ordered = readdirSync(units).filter((name) => name.endsWith(".d"));
  for (const name of ["srv-above.mount.d", "srv-net.mount.d", "srv-far.mount.d"]) {
    assert.ok(ordered.includes(name), name);
  }
  for (const name of ["above", "below", "uuid", "net", "lazy"]) {
    assert.ok(ordered.includes(`systemd-cryptsetup@${name}.service.d`), name);
  }
  assert.equal(circlesOf(units), []);
  // It would be noticed: a gate ordered after something that its mount is ordered before.
  for (const target of ["local-fs.target", "cryptsetup.target", "remote-fs.target"]) {
    const own = "blksnap-front@.service";
    const text = readFileSync(join(UNITS, own), "utf8");
    writeFileSync(
      join(units, own),
      text
        .replace("/usr/lib/blksnap/boot-front", "/bin/true")
        .replace(/^After=/m, `After=${target} `),
    );
    assert.ok(circlesOf(units).length > 0, target);
  }
});

test.run();
