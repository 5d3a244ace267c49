/** The Debian package: what is in it, and what its programs and scripts do where it is installed. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makePackage } from "../../tools/release/debian.mjs";

/** Major version of the Node in a package that carries one. */
const NODE_CARRIED = "24";
const counts = { passed: 0, failed: 0, skipped: 0 };

async function test(name, body) {
  try {
    await body();
    counts.passed++;
    console.log(`✓ ${name}`);
  } catch (error) {
    counts.failed++;
    console.log(`✗ ${name}\n${error.stack}`);
  }
}

/** For programs of the distribution only. What this repository can provide itself is never a reason. */
function skip(name, why) {
  counts.skipped++;
  console.log(`SKIPPED ${name}: ${why}`);
}

function has(program) {
  return spawnSync(program, ["--version"]).error === undefined;
}

const run = (command, args, options) =>
  execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], ...options });

/** Modes of what is in the package, by path. */
function contentsOf(deb) {
  const lines = run("dpkg-deb", ["--contents", deb]).trimEnd().split("\n");
  return new Map(
    lines.map((line) => {
      const [, mode, owner, path] = /^(\S+) (\S+) +\d+ \S+ \S+ \.\/(.*?)(?: -> .*)?$/.exec(line);
      return [path, `${mode} ${owner}`];
    }),
  );
}

const EXPECTED = {
  "usr/bin/blksnapd": "l",
  "usr/bin/blksnapctl": "l",
  "usr/lib/blksnap/node_modules/blksnapd/bin/blksnapd.mjs": "-rwxr-xr-x",
  "usr/lib/blksnap/node_modules/blksnapctl/bin/blksnapctl.mjs": "-rwxr-xr-x",
  "usr/lib/blksnap/node_modules/@blksnap/linux-block/libexec/freeze-guard.sh": "-rw",
  "usr/lib/systemd/system/blksnapd.service": "-rw-r--r--",
  "usr/lib/systemd/system/blksnapd.socket": "-rw-r--r--",
  "usr/lib/systemd/system/blksnapd-nbd.socket": "-rw-r--r--",
  "usr/lib/systemd/system/blksnap-attach@.service": "-rw-r--r--",
  "usr/lib/systemd/system/blksnap-devices.service": "-rw-r--r--",
  "usr/lib/systemd/system/blksnap-front@.service": "-rw-r--r--",
  "usr/lib/systemd/system-generators/blksnap-generator": "-rwxr-xr-x",
  "usr/lib/blksnap/boot-front": "-rwxr-xr-x",
  "usr/lib/blksnap/end-front": "-rwxr-xr-x",
  "usr/lib/blksnap/has-programs": "-rwxr-xr-x",
  "usr/lib/udev/rules.d/59-blksnap.rules": "-rw-r--r--",
  "usr/lib/tmpfiles.d/blksnap.conf": "-rw-r--r--",
  "usr/share/man/man8/blksnapd.8.gz": "-rw-r--r--",
  "usr/share/man/man8/blksnapctl.8.gz": "-rw-r--r--",
  "usr/share/man/man7/blksnap.7.gz": "-rw-r--r--",
  "usr/share/man/man5/blksnap.toml.5.gz": "-rw-r--r--",
  "usr/share/bash-completion/completions/blksnapctl": "-rw-r--r--",
  "usr/share/zsh/vendor-completions/_blksnapctl": "-rw-r--r--",
  "usr/share/fish/vendor_completions.d/blksnapctl.fish": "-rw-r--r--",
  "usr/share/doc/blksnap/copyright": "-rw-r--r--",
  "usr/share/doc/blksnap/changelog.gz": "-rw-r--r--",
  "usr/share/doc/blksnap/THIRD-PARTY-NOTICES.gz": "-rw-r--r--",
  "etc/blksnap/blksnap.toml": "-rw-r--r--",
  "etc/blksnap/blksnap.toml.d/": "drwxr-xr-x",
  "etc/blksnap/hooks.d/": "drwxr-xr-x",
};

async function testContents(deb) {
  await test("the package has all that is to be installed, as root's", () => {
    const contents = contentsOf(deb);
    for (const [path, mode] of Object.entries(EXPECTED)) {
      assert.ok(contents.get(path)?.startsWith(mode), `${path}: ${contents.get(path)}`);
    }
    const helper = [...contents].find(([path]) => path.endsWith("/uring-apart"));
    assert.match(helper?.[1], /^-rwxr-xr-x /);
    assert.ok([...contents.keys()].some((path) => path.endsWith("/uring.node")));
    for (const [path, said] of contents) {
      assert.match(said, / root\/root$/, path);
      assert.doesNotMatch(path, /\.(map|debug|ts|tsbuildinfo)$/);
      if (!said.startsWith("l")) assert.doesNotMatch(said, /^.....w|^........w/, path);
    }
  });
  await test("its fields are those of the repository", () => {
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url)));
    const field = (name) => run("dpkg-deb", ["--field", deb, name]).trim();
    assert.equal(field("Package"), "blksnap");
    assert.equal(field("Version"), manifest.version);
    assert.match(field("Depends"), /\bnodejs \(>= 20\.19\)/);
    assert.equal(manifest.engines.node, ">=20.19");
    assert.ok(Number(field("Installed-Size")) > 1000);
  });
  const lintian = "lintian finds no error";
  if (!has("lintian")) return skip(lintian, "there is no lintian on this machine (apt install)");
  await test(lintian, () => {
    const { stdout } = spawnSync("lintian", ["--fail-on", "error", deb], { encoding: "utf8" });
    assert.deepEqual(
      stdout.split("\n").filter((line) => line.startsWith("E:")),
      [],
    );
  });
}

/** Programs start each other by their first line, which names the distribution's Node: here it is this one. */
async function useThisNode(root) {
  await test("programs begin with the distribution's Node, on which the package depends", () => {
    for (const name of ["blksnapctl", "blksnapd"]) {
      const path = join(root, "usr/lib/blksnap/node_modules", name, "bin", `${name}.mjs`);
      const text = readFileSync(path, "utf8");
      assert.match(text, /^#!\/usr\/bin\/node\n/);
      writeFileSync(path, text.replace("/usr/bin/node", process.execPath));
    }
  });
}

/** A program of the package on this Node, wherever it lies. */
function program(root, name, args, options) {
  const env = { PATH: process.env.PATH };
  const words = [join(root, "usr/bin", name), ...args];
  return spawnSync(process.execPath, words, { encoding: "utf8", env, ...options });
}

async function testPrograms(root) {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url)));
  await test("installed programs run without this repository", () => {
    for (const name of ["blksnapctl", "blksnapd"]) {
      const { status, stdout, stderr } = program(root, name, ["--version"], { cwd: "/" });
      assert.deepEqual([status, stdout, stderr], [0, `${version}\n`, ""], name);
    }
    const report = program(root, "blksnapd", ["--doctor"], { cwd: "/" });
    assert.equal(JSON.parse(report.stdout).version, version, report.stderr);
  });
  await test("the default configuration changes nothing, and is found right", () => {
    const config = join(root, "etc/blksnap/blksnap.toml");
    const print = (...args) => {
      const { status, stdout } = program(root, "blksnapd", ["--print-config", "--json", ...args]);
      assert.equal(status, 0);
      return JSON.parse(stdout);
    };
    const { files, daemon, device } = print("--config", config);
    assert.deepEqual([files, device], [[config], []]);
    assert.deepEqual(
      daemon.filter(({ from }) => from !== "default"),
      [],
    );
    for (const { key } of daemon)
      assert.ok(readFileSync(config, "utf8").includes(`\n# ${key}`), key);
  });
  await test("blksnapctl finds the daemon's program beside itself", () => {
    const config = join(root, "etc/blksnap/blksnap.toml");
    const check = program(root, "blksnapctl", ["config", "check", "--file", config], {
      env: { PATH: `${join(root, "usr/bin")}:${process.env.PATH}` },
    });
    assert.deepEqual([check.status, check.stderr], [0, ""]);
  });
  await test("each commented line of the default configuration can be taken in", () => {
    const config = readFileSync(join(root, "etc/blksnap/blksnap.toml"), "utf8");
    const path = join(root, "all.toml");
    writeFileSync(path, config.replace(/^# (?=[a-z-]+ = |\[\[)/gm, ""));
    const { status, stderr } = program(root, "blksnapd", ["--print-config", "--config", path]);
    assert.deepEqual([status, stderr], [0, ""]);
  });
}

/**
 * Runs a maintainer script in which blksnapctl answers as given; returns its status, its output and its calls.
 * @param active units that systemd runs; without it there is no systemd
 * @param service the state of the service among those, as systemd calls it
 */
function script(root, name, args, { status = 0, says = "", active, service = "active" }) {
  const bin = join(root, "stubs");
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, "said"), says);
  const called = join(bin, "called");
  rmSync(called, { force: true });
  const stub = `#!/bin/sh\necho "$@" >> ${called}\ncat ${bin}/said >&2\nexit ${status}\n`;
  writeFileSync(join(bin, "blksnapctl"), stub);
  chmodSync(join(bin, "blksnapctl"), 0o755);
  const ofService = `echo ${service}; [ ${service} = active ] && exit 0; exit 3`;
  const ofUnit = `case $unit in *.service) ${ofService} ;; esac; echo active; exit 0`;
  const known = `case " ${active?.join(" ")} " in *" $unit "*) ${ofUnit} ;; esac`;
  const unit = 'for unit in "$@"; do :; done';
  const asked = `case "$*" in *is-active*) ${unit}; ${known}; echo inactive; exit 3 ;; esac`;
  writeFileSync(join(bin, "systemctl"), `#!/bin/sh\n${asked}\necho "$2 $3" >> ${called}\n`);
  chmodSync(join(bin, "systemctl"), 0o755);
  const env = { PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin` };
  const systemd = active === undefined ? join(bin, "none") : bin;
  const text = readFileSync(join(root, "control", name), "utf8");
  const words = ["-c", text.replaceAll("/run/systemd/system", systemd), name, ...args];
  const ended = spawnSync("sh", words, { encoding: "utf8", env });
  const calls = existsSync(called) ? readFileSync(called, "utf8").trim() : "";
  return { status: ended.status, said: ended.stderr, calls };
}

async function testScripts(root) {
  await test("removal is refused while something is in use, and says what", () => {
    const says =
      "blksnapctl: daemon: in use: /dev/ublkb0 (/dev/vg/a), mounted at /srv. [DAEMON_IN_USE]";
    for (const how of ["remove", "deconfigure"]) {
      const refused = script(root, "prerm", [how], { status: 1, says });
      assert.equal(refused.status, 1);
      assert.match(refused.said, /\/dev\/ublkb0 \(\/dev\/vg\/a\), mounted at \/srv/);
      assert.equal(refused.calls, "daemon stop");
    }
  });
  await test("a removal that is refused leaves the socket as it was", () => {
    const [service, socket] = ["blksnapd.service", "blksnapd.socket"];
    const says = "blksnapctl: daemon: in use: /dev/ublkb0. [DAEMON_IN_USE]";
    const calls = (active, answer) =>
      script(root, "prerm", ["remove"], { ...answer, active }).calls;
    const refused = { status: 1, says };
    assert.equal(calls([service, socket], refused), "daemon stop");
    const again = ["stop blksnapd.socket", "daemon stop", "start blksnapd.socket"];
    assert.equal(calls([socket], refused), again.join("\n"));
    assert.equal(calls([], refused), "daemon stop");
    // It starts: there is a daemon to be asked, and its socket stays as it is.
    const starting = { ...refused, service: "activating" };
    assert.equal(calls([service, socket], starting), "daemon stop");
    // One that fails repeatedly never answers: systemd's socket, without a daemon, prevents no removal.
    const failing = { status: 1, says: "no answer [TIMEOUT]", service: "activating" };
    assert.equal(calls([service, socket], failing), ["daemon stop", ...again].join("\n"));
    assert.equal(calls([socket], {}), again.slice(0, 2).join("\n"));
    assert.equal(calls([service, socket], {}), ["daemon stop", ...again.slice(0, 2)].join("\n"));
  });
  await test("removal ends the daemon; where none runs, and nothing waits, it continues", () => {
    assert.equal(script(root, "prerm", ["remove"], {}).status, 0);
    const says = "blksnapctl: daemon: no daemon. [DAEMON_NOT_RUNNING]";
    const alone = script(root, "prerm", ["remove"], { status: 1, says });
    assert.deepEqual([alone.status, alone.said], [0, ""]);
    assert.equal(script(root, "prerm", ["remove"], { status: 1, says: "broken" }).status, 1);
  });
  await test("an upgrade leaves the daemon running until the new program is there", () => {
    for (const args of [
      ["upgrade", "9"],
      ["failed-upgrade", "1"],
    ]) {
      assert.deepEqual(script(root, "prerm", args, {}), { status: 0, said: "", calls: "" });
    }
    assert.match(readFileSync(join(root, "control/postinst"), "utf8"), /blksnapctl daemon upgrade/);
  });
  await test("units that npm's blksnapd has written are no longer there before the package's come", () => {
    const other = join(root, "other-root");
    const folder = join(other, "etc/systemd/system");
    mkdirSync(folder, { recursive: true });
    const preinst = () => {
      const env = { PATH: process.env.PATH, DPKG_ROOT: other };
      const words = [join(root, "control/preinst"), "install"];
      return spawnSync("/bin/sh", words, { encoding: "utf8", env });
    };
    assert.deepEqual([preinst().status, preinst().stderr], [0, ""]);
    writeFileSync(join(folder, "blksnapd.service"), "[Unit]\n");
    assert.equal(preinst().status, 0);
    writeFileSync(
      join(folder, "blksnapd.service"),
      "# Written by blksnapd --install-units\n[Unit]\n",
    );
    assert.equal(preinst().status, 1);
    assert.match(preinst().stderr, /blksnapd --uninstall-units/);
  });
  await test("scripts do nothing to the host when they are to work on another root", () => {
    for (const [name, arg] of [
      ["postinst", "configure"],
      ["prerm", "remove"],
      ["postrm", "purge"],
    ]) {
      const env = { PATH: "/nowhere", DPKG_ROOT: root };
      const words = [join(root, "control", name), arg];
      const { status, stderr } = spawnSync("/bin/sh", words, { encoding: "utf8", env });
      assert.deepEqual([status, stderr], [0, ""], name);
    }
  });
}

async function testSockets(root) {
  await test("a removal that is refused leaves both sockets as they were", () => {
    const active = ["blksnapd.socket", "blksnapd-nbd.socket"];
    const says = "blksnapctl: daemon: in use: /dev/ublkb0. [DAEMON_IN_USE]";
    const { calls } = script(root, "prerm", ["remove"], { status: 1, says, active });
    const expected = [
      ...active.map((socket) => `stop ${socket}`),
      "daemon stop",
      ...active.map((socket) => `start ${socket}`),
    ];
    assert.equal(calls, expected.join("\n"));
  });
}

/** dpkg itself, on a root of its own. */
async function testDpkg(deb, folder) {
  await test("dpkg installs it, keeps a changed configuration, removes it and purges it", () => {
    const root = join(folder, "dpkg");
    for (const path of ["updates", "info", "triggers"]) {
      mkdirSync(join(root, "var/lib/dpkg", path), { recursive: true });
    }
    for (const name of ["status", "available"]) writeFileSync(join(root, "var/lib/dpkg", name), "");
    const dpkg = (...args) =>
      run("dpkg", [
        `--root=${root}`,
        `--log=${join(root, "log")}`,
        ...["--force-depends", "--force-not-root", "--force-script-chrootless", "--force-confold"],
        ...["--force-bad-path", "--no-triggers", ...args],
      ]);
    const config = join(root, "etc/blksnap/blksnap.toml");
    dpkg("--install", deb);
    assert.ok(existsSync(join(root, "usr/lib/systemd/system/blksnapd.service")));
    writeFileSync(config, "[daemon]\nreactors = 2\n");
    dpkg("--install", deb);
    assert.match(readFileSync(config, "utf8"), /reactors = 2/);
    dpkg("--remove", "blksnap");
    assert.ok(!existsSync(join(root, "usr/lib/blksnap")));
    assert.ok(existsSync(config), "until it is purged");
    dpkg("--purge", "blksnap");
    assert.ok(!existsSync(config));
  });
}

/** For distributions whose Node is too old: nothing here may lead to this machine's. */
async function testWithNode(folder) {
  const deb = await makePackage({ into: folder, withNode: NODE_CARRIED, compression: "none" });
  const root = join(folder, "with-node");
  run("dpkg-deb", ["--extract", deb, root]);
  const node = join(root, "usr/lib/blksnap/node");
  const version = run(node, ["--version"], { env: {} }).trim().slice(1);
  await test("a package with its own Node depends on no other, and has its licence", () => {
    assert.ok(version.startsWith(`${NODE_CARRIED}.`), version);
    assert.match(run("dpkg-deb", ["--field", deb, "Version"]), new RegExp(`\\+node${version}\n$`));
    assert.doesNotMatch(run("dpkg-deb", ["--field", deb, "Depends"]), /nodejs/);
    const contents = contentsOf(deb);
    assert.match(contents.get("usr/lib/blksnap/node"), /^-rwxr-xr-x root\/root$/);
    assert.ok(contents.has("usr/share/doc/blksnap/NODE-LICENSE.gz"));
  });
  await test("its programs begin with that Node, and run on it", () => {
    for (const name of ["blksnapctl", "blksnapd"]) {
      const path = join(root, "usr/bin", name);
      assert.match(readFileSync(path, "utf8"), /^#!\/usr\/lib\/blksnap\/node\n/);
      const { status, stderr } = spawnSync(node, [path, "--version"], {
        encoding: "utf8",
        env: {},
      });
      assert.deepEqual([status, stderr], [0, ""], name);
    }
    // It loads the native code.
    const words = [join(root, "usr/bin/blksnapd"), "--doctor"];
    const report = spawnSync(node, words, { encoding: "utf8", env: { PATH: "/usr/bin:/bin" } });
    const said = JSON.parse(report.stdout).checks.map(({ what }) => what);
    assert.ok(said.includes(`Node v${version}`), report.stderr);
    assert.ok(said.includes("io_uring works"), report.stderr);
  });
}

if (!has("dpkg-deb")) {
  skip("the Debian package", "there is no dpkg-deb on this machine: none can be made");
} else {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-package-"));
  try {
    const deb = await makePackage({ into: folder });
    await testContents(deb);
    const root = join(folder, "root");
    run("dpkg-deb", ["--extract", deb, root]);
    run("dpkg-deb", ["--control", deb, join(root, "control")]);
    await useThisNode(root);
    await testPrograms(root);
    await testScripts(root);
    await testSockets(root);
    await testWithNode(folder);
    if (has("dpkg")) await testDpkg(deb, folder);
    else skip("dpkg installs and removes it", "there is no dpkg on this machine");
  } finally {
    rmSync(folder, { recursive: true });
  }
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = counts.failed === 0 ? 0 : 1;
