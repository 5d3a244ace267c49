/** What blksnap-generator makes of an fstab, and whether systemd's own generator uses the same unit names. */
import { spawnSync } from "node:child_process";
import {
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
  CONFIG,
  endRoot,
  generated,
  hasSystemd,
  root,
  runGenerator,
  setUpRoot,
  unitsOf,
  withoutComments,
} from "./generator-root.js";

const THEIRS = "/usr/lib/systemd/system-generators/systemd-fstab-generator";

const test = suite("blksnap-generator");
test.before.each(setUpRoot);
test.after.each(endRoot);

test("a mount by UUID or label waits, and is otherwise unchanged", () => {
  if (!hasSystemd) return;
  const files = generated(
    "UUID=12-ab /srv/a-b ext4 defaults 0 2\nLABEL=x /srv/x xfs defaults 0 0\n",
  );
  const gate = String.raw`blksnap-front@dev-disk-by\x2duuid-12\x2dab.service`;
  const check = String.raw`systemd-fsck@dev-disk-by\x2duuid-12\x2dab.service`;
  assert.equal(unitsOf(files), [String.raw`srv-a\x2db.mount`, "srv-x.mount", check]);
  for (const unit of [String.raw`srv-a\x2db.mount`, check]) {
    const text = withoutComments(files[`${unit}.d/50-blksnap.conf`]);
    assert.is(text, `[Unit]\nWants=${gate}\nAfter=${gate}\n`);
  }
});

test("a mount by another name, and its check, use the link to the front", () => {
  if (!hasSystemd) return;
  const files = generated("/dev/vg/a /srv ext4 defaults 0 2\n");
  const unit =
    "[Unit]\nWants=blksnap-front@dev-vg-a.service\nAfter=blksnap-front@dev-vg-a.service\n";
  const what = "/run/blksnap-boot/dev/vg/a";
  assert.is(
    withoutComments(files["srv.mount.d/50-blksnap.conf"]),
    `${unit}Requires=dev-vg-a.device\nAfter=dev-vg-a.device\n\n[Mount]\nWhat=${what}\n`,
  );
  assert.is(
    withoutComments(files["systemd-fsck@dev-vg-a.service.d/50-blksnap.conf"]),
    `${unit}\n[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-fsck ${what}\n`,
  );
  const parts = generated('PARTUUID="1-2" /srv ext4 defaults 0 0\n');
  assert.match(
    parts["srv.mount.d/50-blksnap.conf"]!,
    "/run/blksnap-boot/dev/disk/by-partuuid/1-2\n",
  );
});

const UNTOUCHED = [
  "# /dev/vg/a /srv ext4 defaults 0 0",
  "",
  "/dev/vg/a",
  ...["/", "/usr", "/usr/", "/etc", "/var", "/var/lib", "/var/lib/blksnap", "/run"].map(
    (where) => `UUID=1 ${where} ext4 defaults 0 1`,
  ),
  "UUID=1 none swap sw 0 0",
  "UUID=1 none ext4 defaults 0 0",
  "tmpfs /tmp tmpfs defaults 0 0",
  "host:/x /srv nfs4 defaults 0 0",
  "/dev/vg/a /srv ext4 x-systemd.makefs 0 0",
  "/srv/image /mnt ext4 loop 0 0",
  "/dev/ublkb0 /srv ext4 defaults 0 0",
  "/dev/blksnap/a /srv ext4 defaults 0 0",
  String.raw`/dev/vg/a\040b /srv ext4 defaults 0 0`,
  "/dev/vg/../a /srv ext4 defaults 0 0",
];

test("mounts without a device, and those that the daemon needs, are left alone", () => {
  if (!hasSystemd) return;
  for (const line of UNTOUCHED) assert.equal(generated(`${line}\n`), {}, line);
  for (const where of ["/var/lib/x", "/var/lib/blksnap2", "/usr/local"]) {
    const unit = `${where.slice(1).replaceAll("/", "-")}.mount`;
    assert.equal(unitsOf(generated(`UUID=1 ${where} ext4 defaults 0 0\n`)), [unit]);
  }
});

test("a mount that needs the network waits like any other, and its gate waits for nothing that the mount waits for", () => {
  if (!hasSystemd) return;
  const files = generated(
    "UUID=1 /srv ext4 rw,_netdev 0 0\n/dev/vg/a /mnt xfs _netdev,nofail 0 0\n",
  );
  assert.equal(unitsOf(files), ["mnt.mount", "srv.mount"]);
  assert.match(files["mnt.mount.d/50-blksnap.conf"]!, "\nWhat=/run/blksnap-boot/dev/vg/a\n");
});

test("a mount that any drop-in redirects is left alone, whether for one mount or for many", () => {
  if (!hasSystemd) return;
  const places = ["/srv/a-b/c", "/opt/x/y", "/mnt/q/r", "/data/o", "/data-o"];
  const lines = places.map((where) => `/dev/vg/a ${where} ext4 defaults 0 0\n`).join("");
  const dropIn = (folder: string, name: string, line: string): void => {
    const conf = join(root, folder, `${name}.d/a.conf`);
    mkdirSync(dirname(conf), { recursive: true });
    writeFileSync(conf, `[Mount]\n${line}\n`);
  };
  dropIn("etc/systemd/system", String.raw`srv-a\x2db-c.mount`, "What=/dev/vg/b");
  dropIn("run/systemd/system", "opt-x-.mount", " What = /dev/vg/b");
  dropIn("usr/lib/systemd/system", "mnt-.mount", "What=/dev/vg/b");
  dropIn("etc/systemd/system", "data-.mount", "Options=noatime");
  dropIn("etc/systemd/system", "data.mount", "What=/dev/vg/b");
  assert.equal(unitsOf(generated(lines)), ["data-o.mount", String.raw`data\x2do.mount`]);
  dropIn("usr/lib/systemd/system", "mount", "What=/dev/vg/b");
  assert.equal(generated(lines), {});
});

test("of several lines for one mount point only the first counts, even if it is left alone", () => {
  if (!hasSystemd) return;
  for (const first of [
    "tmpfs /srv tmpfs",
    "host:/x /srv nfs4 defaults",
    "/srv/image /srv/ ext4 loop",
  ])
    assert.equal(generated(`${first} 0 0\n/dev/vg/a /srv ext4 defaults 0 2\n`), {}, first);
  const files = generated("/dev/vg/a /srv ext4 defaults 0 0\n/dev/vg/b /srv//x/.. ext4 rw 0 2\n");
  assert.equal(unitsOf(files), ["srv.mount"]);
  assert.match(files["srv.mount.d/50-blksnap.conf"]!, "\nWhat=/run/blksnap-boot/dev/vg/a\n");
  const after = "/dev/vg/a /srv swap sw 0 0\nUUID=1 /srv ext4 defaults 0 0\n";
  assert.equal(unitsOf(generated(after)), ["srv.mount"]);
});

test("a unit overrides a line of fstab for the same mount point", () => {
  if (!hasSystemd) return;
  for (const folder of ["etc/systemd/system", "run/systemd/system"]) {
    mkdirSync(join(root, folder), { recursive: true });
    const unit = join(root, folder, "srv.mount");
    writeFileSync(unit, "[Mount]\nWhat=//server/share\nWhere=/srv\n");
    assert.equal(generated("/dev/vg/a /srv ext4 defaults 0 2\n"), {}, folder);
    rmSync(unit);
    symlinkSync("/nowhere", unit);
    assert.equal(generated("/dev/vg/a /srv ext4 defaults 0 2\n"), {}, folder);
    rmSync(unit);
  }
});

/** A mount unit, by default the administrator's, with the line in its [Mount] section. */
function ofUnit(
  name: string,
  line: string,
  { dropIn = "", folder = "etc/systemd/system", fstab = "" } = {},
): Record<string, string> {
  const path = join(root, folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `[Unit]\nDescription=data\n\n[Mount]\n${line}\nWhere=/srv\n`);
  if (dropIn !== "") {
    mkdirSync(`${path}.d`);
    writeFileSync(join(`${path}.d`, "a.conf"), `[Mount]\n${dropIn}\n`);
  }
  const files = generated(fstab);
  rmSync(path);
  rmSync(`${path}.d`, { recursive: true, force: true });
  return files;
}

test("a mount unit of the administrator waits for the front and uses it, like a line of fstab", () => {
  if (!hasSystemd) return;
  const name = String.raw`srv-a\x2db.mount`;
  const { [`${name}.d/50-blksnap.conf`]: own, ...others } = ofUnit(name, "What = /dev/vg/a ");
  assert.equal(others, {});
  assert.match(own!, "\nAfter=blksnap-front@dev-vg-a.service\n");
  assert.match(own!, "\nRequires=dev-vg-a.device\n");
  assert.match(own!, "\n[Mount]\nWhat=/run/blksnap-boot/dev/vg/a\n");
  assert.equal(unitsOf(ofUnit(name, "What=/dev/vg/a", { dropIn: "DirectoryMode=0700" })), [name]);
  const byUuid = ofUnit("srv.mount", "What=/dev/vg/b\nWhat=/dev/disk/by-uuid/12-ab")[
    "srv.mount.d/50-blksnap.conf"
  ]!;
  assert.match(byUuid, String.raw`After=blksnap-front@dev-disk-by\x2duuid-12\x2dab.service`);
  assert.not.match(byUuid, "What=");
});

test("a mount unit of no device, or one that a drop-in changes, is left alone", () => {
  if (!hasSystemd) return;
  for (const line of [
    ...["What=tmpfs", "What=//server/share", "What=/dev/%I", "What=/dev/ublkb0", "Type=ext4"],
    ...["What=/dev/vg/a\nOptions=ro,bind", "What=/dev/vg/\\\na"],
  ]) {
    assert.equal(ofUnit("srv.mount", line), {}, line);
  }
  assert.equal(ofUnit("srv.mount", "What=/dev/vg/a", { dropIn: "What=/dev/vg/b" }), {});
  assert.equal(ofUnit("var-lib.mount", "What=/dev/vg/a"), {}, "the daemon needs it");
});

test("a unit of a package waits, too, unless one of the administrator or a line of fstab overrides it", () => {
  if (!hasSystemd) return;
  const what = "What=/dev/vg/a";
  for (const folder of ["usr/lib/systemd/system", "usr/local/lib/systemd/system"]) {
    assert.equal(unitsOf(ofUnit("srv.mount", what, { folder })), ["srv.mount"]);
    const fstab = "tmpfs /srv tmpfs defaults 0 0\n";
    assert.equal(ofUnit("srv.mount", what, { folder, fstab }), {}, folder);
    const own = join(root, "etc/systemd/system/srv.mount");
    symlinkSync("/dev/null", own);
    assert.equal(ofUnit("srv.mount", what, { folder }), {}, "masked");
    rmSync(own);
  }
  const folder = "run/systemd/system";
  assert.equal(unitsOf(ofUnit("srv.mount", what, { folder })), ["srv.mount"]);
});

test("without devices, or without the service, nothing is made", () => {
  const line = "UUID=1 /srv ext4 defaults 0 0\n";
  assert.equal(generated(line, { config: "[daemon]\n# [[device]]\n" }), {});
  rmSync(join(root, "etc/systemd"), { recursive: true });
  assert.equal(generated(line), {});
  rmSync(join(root, "etc/fstab"));
  assert.is(runGenerator(join(root, "out")).status, 0);
});

test("devices of a drop-in count, in any spelling of TOML", () => {
  if (!hasSystemd) return;
  const line = "UUID=1 /srv ext4 defaults 0 0";
  for (const dropIn of [
    '[[device]]\ndevice="/dev/vg/a"',
    "device = [{ device = '/dev/a' }]",
    '[["device"]]',
  ]) {
    assert.equal(unitsOf(generated(line, { config: "", dropIn })), ["srv.mount"], dropIn);
  }
});

test("the boot waits for the daemon's start as long as for the most patient device, and three minutes", () => {
  const boundOf = (config: string, dropIn = ""): string => {
    generated("", { config, dropIn });
    const path = join(root, "out/blksnapd.service.d/50-blksnap.conf");
    return /^JobRunningTimeoutSec=(.*)$/m.exec(readFileSync(path, "utf8"))?.[1] ?? "";
  };
  assert.is(boundOf(CONFIG), "210");
  assert.is(boundOf(`${CONFIG}wait-seconds = 0\n`), "210");
  assert.is(boundOf(`${CONFIG}"wait-seconds"=90 # or 3600\n`, "wait-seconds =  300\n"), "480");
  assert.is(boundOf(`${CONFIG}wait-seconds = "3600"\n`), "210");
});

test("systemd's generator names mounts and checks the same", () => {
  if (!hasSystemd || !existsSync(THEIRS)) return;
  const fstab = [
    String.raw`LABEL=my\040data /srv/with\040space ext4 defaults 0 2`,
    "LABEL=größe/1 /srv/größe xfs nofail 0 2",
    'UUID="1234-ABCD" /srv/boot/efi/ vfat umask=0077 0 2',
    "PARTLABEL=a_b /srv/label ext4 defaults 0 2",
    "/dev/mapper/vg-a--b /srv/a-b ext4 noauto 0 2",
    "/dev/vg/other /srv/a-b ext4 defaults 0 2",
    "tmpfs /srv/memory tmpfs defaults 0 0",
    "/dev/vg/other /srv/memory ext4 defaults 0 2",
    "/dev/vg/c /srv/own ext4 defaults 0 2",
  ];
  // Left alone: another kind of mount overrides it, and so does a unit of the administrator.
  const alone = ["srv-memory.mount", "srv-own.mount"];
  writeFileSync(join(root, "etc/systemd/system/srv-own.mount"), "");
  const ours = generated(`${fstab.join("\n")}\n`);
  const into = join(root, "theirs");
  mkdirSync(into);
  const env = { PATH: process.env["PATH"], SYSTEMD_FSTAB: join(root, "etc/fstab") };
  // It complains about duplicates, and continues.
  spawnSync(THEIRS, [into, into, into], { env });
  const theirs = readdirSync(into).filter((name) => name.endsWith(".mount"));
  const mounts = unitsOf(ours).filter((name) => name.endsWith(".mount"));
  assert.equal([...mounts, ...alone].sort(), theirs.sort());
  for (const mount of mounts) {
    const own = /^What=\/run\/blksnap-boot(.*)$/m.exec(ours[`${mount}.d/50-blksnap.conf`]!)?.[1];
    const text = readFileSync(join(into, mount), "utf8");
    if (own !== undefined) assert.is(/^What=(.*)$/m.exec(text)?.[1], own, mount);
  }
  // It requests checks only if their program exists.
  const checks = mounts.flatMap((mount) => {
    const text = readFileSync(join(into, mount), "utf8");
    return /^Requires=(systemd-fsck@.*)$/m.exec(text)?.[1] ?? [];
  });
  assert.ok(checks.length > 1);
  for (const check of checks) assert.ok(unitsOf(ours).includes(check), check);
});

test.run();
