/** What --install-units writes and refuses, and that --uninstall-units removes all of it. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { installUnits, type UnitsSurroundings, uninstallUnits } from "../dist/install-units.js";

const test = suite("install-units");

let root: string;
let programs: string;
let packageFolder: string;
test.before.each(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "blksnap-install-")));
  programs = join(root, "opt/bin");
  for (const path of [programs, join(root, "run/systemd/system")])
    mkdirSync(path, { recursive: true });
  // The tree may be in a home directory.
  packageFolder = `${root}-package`;
  symlinkSync(join(import.meta.dirname, ".."), packageFolder);
  writeFileSync(join(programs, "blksnapctl"), "");
  chmodSync(join(programs, "blksnapctl"), 0o755);
});
test.after.each(() => {
  rmSync(root, { recursive: true });
  rmSync(packageFolder);
});

const surroundings = (more: Partial<UnitsSurroundings> = {}): UnitsSurroundings => ({
  packageFolder,
  node: "/opt/node/bin/node",
  searchPath: `none:/none:${programs}`,
  userId: 0,
  activeState: () => "inactive",
  root,
  ...more,
});

/** All files below root, except those that existed before. */
function written(): string[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((path) => statSync(join(root, path)).isFile() && path !== "opt/bin/blksnapctl")
    .sort();
}
const read = (path: string): string => readFileSync(join(root, path), "utf8");

test("each file of the package is written with its mark, and listed", () => {
  const lines = installUnits(surroundings());
  const files = ["systemd", "system-generators", "udev", "tmpfiles", "libexec"].flatMap((folder) =>
    readdirSync(join(packageFolder, folder)),
  );
  assert.equal(
    written()
      .map((path) => path.split("/").at(-1))
      .sort(),
    files.sort(),
  );
  for (const path of written()) {
    assert.ok(lines.includes(`wrote ${root}/${path}`), path);
    assert.match(read(path), /^(#!.*\n)?# Written by blksnapd --install-units\n/);
    const isProgram = read(path).startsWith("#!");
    assert.is(statSync(join(root, path)).mode & 0o777, isProgram ? 0o755 : 0o644);
  }
  assert.match(lines.join("\n"), "next: systemctl daemon-reload");
});

test("units start the programs by their paths, after the mounts that these need", () => {
  installUnits(surroundings());
  const daemon = `/opt/node/bin/node ${packageFolder}/bin/blksnapd.mjs`;
  const control = `/opt/node/bin/node ${programs}/blksnapctl`;
  const unit = (name: string): string => read(`etc/systemd/system/${name}`);
  assert.match(unit("blksnapd.service"), `\nExecStart=${daemon} --supervise --stops-last\n`);
  assert.match(unit("blksnapd.service"), `\nExecReload=${control} daemon upgrade\n`);
  assert.match(
    unit("blksnap-attach@.service"),
    `\nExecStart=${control} --wait attach --device %f\n`,
  );
  assert.match(unit("blksnap-devices.service"), `${daemon} --print-config > draft`);
  const helper = "/usr/local/lib/blksnap";
  // npm removes them, and the units stay.
  assert.match(
    unit("blksnapd.service"),
    `\nExecCondition=${helper}/has-programs ${daemon}\nExecStart=`,
  );
  const exist = (command: string): string =>
    command
      .split(" ")
      .map((path) => `\nConditionPathExists=${path}`)
      .join("");
  assert.match(unit("blksnap-devices.service"), `${exist(daemon)}\n`);
  assert.match(unit("blksnap-attach@.service"), `${exist(control)}\n`);
  assert.match(unit("blksnap-front@.service"), `\nExecStart=-${helper}/boot-front %f\n`);
  assert.match(read(`${helper}/boot-front`.slice(1)), `"$root"${control} attach --front`);
  for (const name of readdirSync(join(root, "etc/systemd/system"))) {
    assert.not.match(unit(name), /=.*\/usr\/(bin\/blksnap|lib\/blksnap\/[a-z])/, name);
  }
  const folders = `/opt/node/bin ${packageFolder}/bin ${programs} ${helper}`;
  for (const name of ["blksnapd", "blksnap-devices", "blksnap-front@"]) {
    assert.match(
      unit(`${name}.service`),
      new RegExp(`^RequiresMountsFor=/.* ${folders}$`, "m"),
      name,
    );
  }
  assert.match(
    read("etc/systemd/system-generators/blksnap-generator"),
    `\nneeded="${folders} /usr`,
  );
  assert.match(read("etc/systemd/system-generators/blksnap-generator"), `\nhelpers=${helper}\n`);
  assert.match(read(`${helper}/end-front`.slice(1)), `"$root"${control} detach`);
});

test("a second installation replaces only files with the mark", () => {
  installUnits(surroundings());
  installUnits(surroundings({ node: "/opt/other/node" }));
  assert.match(read("etc/systemd/system/blksnapd.service"), "=/opt/other/node ");
  const own = join(root, "etc/udev/rules.d/59-blksnap.rules");
  writeFileSync(own, "# mine\n");
  assert.throws(
    () => installUnits(surroundings({ node: "/opt/third/node" })),
    /rules exists, and --install-units did not/,
  );
  assert.is(readFileSync(own, "utf8"), "# mine\n");
  rmSync(own);
  symlinkSync("/nowhere", own);
  assert.throws(() => installUnits(surroundings()), /rules exists, and --install-units did not/);
  assert.match(read("etc/systemd/system/blksnapd.service"), "=/opt/other/node ");
});

test("nothing is written without root, systemd, blksnapctl or files of npm", () => {
  const refused = (more: Partial<UnitsSurroundings>, why: RegExp): void => {
    assert.throws(() => installUnits(surroundings(more)), why);
  };
  refused({ userId: 1000 }, /needs root/);
  refused({ searchPath: "/none" }, /blksnapctl is not in \$PATH/);
  refused({ packageFolder: root }, /contains no units/);
  refused({ node: "/opt/my node/node" }, /needs quoting/);
  for (const home of ["/root", "/home/me/.nvm/node", "/run/user/0"])
    refused({ node: `${home}/node` }, /cannot access .*Install Node below \/usr\/local/);
  rmSync(join(root, "run"), { recursive: true });
  refused({}, /systemd does not run here/);
  mkdirSync(join(root, "run/systemd/system"), { recursive: true });
  mkdirSync(join(root, "usr/lib/systemd/system"), { recursive: true });
  writeFileSync(join(root, "usr/lib/systemd/system/blksnapd.service"), "");
  refused({}, /a package has installed the units/);
  assert.equal(written(), ["usr/lib/systemd/system/blksnapd.service"]);
});

test("everything is uninstalled, unless the service is enabled or running", () => {
  assert.throws(() => uninstallUnits(surroundings()), /there are no units/);
  const lines = installUnits(surroundings()).filter((line) => line.startsWith("wrote "));
  writeFileSync(join(root, "etc/systemd/system/blksnap-mine.service"), "");
  const wants = join(root, "etc/systemd/system/multi-user.target.wants");
  mkdirSync(wants);
  writeFileSync(join(wants, "blksnapd.service"), "");
  assert.throws(() => uninstallUnits(surroundings()), /systemctl disable 'blksnapd.service' first/);
  rmSync(wants, { recursive: true });
  const attach = join(root, "etc/systemd/system/dev-a.device.wants");
  mkdirSync(attach);
  symlinkSync("/none", join(attach, "blksnap-attach@dev-a.service"));
  assert.throws(
    () => uninstallUnits(surroundings()),
    /disable 'blksnap-attach@dev-a.service' first/,
  );
  rmSync(attach, { recursive: true });
  for (const state of ["active", "activating", "deactivating", "reloading"]) {
    const running = surroundings({ activeState: () => state });
    assert.throws(() => uninstallUnits(running), /daemon stop first/, state);
  }
  for (const socket of ["blksnapd.socket", "blksnapd-nbd.socket", "blksnapd-nbd-tcp.socket"]) {
    const activeState = (unit: string) => (unit === socket ? "active" : "inactive");
    assert.throws(
      () => uninstallUnits(surroundings({ activeState })),
      new RegExp(`systemctl stop ${socket} first`),
    );
  }
  mkdirSync(join(root, "sys/class/block/ublkb1"), { recursive: true });
  for (const [kind, name] of [
    ["fronts", "ublkb1"],
    ["images", "ublkb1"],
    ["fronts", "ublkb2"],
  ] as const) {
    mkdirSync(join(root, "run/blksnap-udev", kind), { recursive: true });
    writeFileSync(join(root, "run/blksnap-udev", kind, name), "");
    if (name === "ublkb2") continue;
    assert.throws(() => uninstallUnits(surroundings()), /ublkb1 of blksnap exists, and waits/);
    rmSync(join(root, "run/blksnap-udev", kind, name));
  }
  assert.throws(() => uninstallUnits(surroundings({ userId: 1000 })), /needs root/);
  assert.is(written().length, lines.length + 2);
  const removed = uninstallUnits(surroundings());
  const expected = lines.map((line) => line.replace("wrote", "removed"));
  assert.equal(removed.filter((line) => line.startsWith("removed ")).sort(), expected.sort());
  const others = ["etc/systemd/system/blksnap-mine.service", "run/blksnap-udev/fronts/ublkb2"];
  assert.equal(written(), others);
  assert.not.ok(existsSync(join(root, "usr/local/lib/blksnap")));
});

test("the program reports a refusal in one line", () => {
  const bin = join(packageFolder, "bin/blksnapd.mjs");
  const env = { PATH: "/none" };
  // As root blksnapctl is missing, and otherwise the rights.
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, "--install-units"], {
    env,
    encoding: "utf8",
  });
  assert.equal([status, stdout], [1, ""]);
  assert.match(stderr, /^blksnapd: .*\n$/);
});

test.run();
