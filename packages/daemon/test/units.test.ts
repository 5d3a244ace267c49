/** The units are valid for systemd, grant no undocumented rights, and give a reason for each right that they grant. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { DEFAULT_SOCKET_PATH, ERRORS, parseTcpAddress } from "@blksnap/api";
import { SOCKET_GROUP } from "@blksnap/api-server";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DEVICE_KEYS } from "../dist/config/config.js";
import { ExitStatus } from "../dist/exit-status.js";
import { nbdSocketPath } from "../dist/nbd-socket.js";
import { parseOptions } from "../dist/options.js";
import { passedSockets } from "../dist/passed-sockets.js";

const EXPOSURE_BELOW = 5;
const folder = join(import.meta.dirname, "../systemd");
const all = readdirSync(folder);
const units = all.filter((name) => name.endsWith(".service"));
const textOf = (unit: string) => readFileSync(join(folder, unit), "utf8");

/** The values of a setting, in order. */
function valuesOf(unit: string, setting: string): string[] {
  const lines = textOf(unit).split("\n");
  return lines.flatMap((line) =>
    line.startsWith(`${setting}=`) ? [line.split("=").slice(1).join("=")] : [],
  );
}

function analyze(...words: string[]) {
  return spawnSync("systemd-analyze", words, { encoding: "utf8" });
}
/** The first version that can do both without a manager. */
const SYSTEMD_LEAST = 250;
const version = Number(/^systemd (\d+)/.exec(analyze("--version").stdout ?? "")?.[1] ?? 0);
const hasSystemd = version >= SYSTEMD_LEAST;
if (!hasSystemd) console.log(`SKIPPED in part: systemd-analyze ${SYSTEMD_LEAST} is not here`);

test("systemd finds no mistake in the units", () => {
  if (!hasSystemd) return;
  const copies = mkdtempSync(join(tmpdir(), "blksnap-units-"));
  // The programs are not installed here.
  for (const unit of all) {
    const text = textOf(unit).replace(
      /\/usr\/(bin\/blksnap\w+|lib\/blksnap\/[\w-]+)/g,
      "/bin/true",
    );
    writeFileSync(join(copies, unit), text);
  }
  const paths = all.map((unit) => join(copies, unit));
  const { status, stderr } = analyze("verify", "--man=no", "--recursive-errors=no", ...paths);
  rmSync(copies, { recursive: true });
  assert.equal([stderr.split("\n").filter((line) => line.includes("blksnap")), status], [[], 0]);
});

test("the exposure of each unit stays below its bound", () => {
  if (!hasSystemd) return;
  for (const unit of units) {
    const { stdout, stderr } = analyze("security", "--offline=yes", join(folder, unit));
    const level = Number(
      /Overall exposure level for \S+: ([\d.]+) /.exec(stdout)?.[1] ?? Number.NaN,
    );
    assert.ok(level < EXPOSURE_BELOW, `${unit}: ${level} ${stderr}`);
  }
});

test("a unit whose program is gone is skipped, and not restarted", () => {
  for (const unit of units) {
    const [command = ""] = valuesOf(unit, "ExecStart");
    const named = ["blksnapd", "blksnapctl"].find((name) => command.includes(`/usr/bin/${name} `));
    // boot-front is among the written files, and leads mounts to their originals then.
    if (named === undefined) continue;
    const conditions = [
      ...valuesOf(unit, "ExecCondition").map((line) => line.split(" ")[1]),
      ...valuesOf(unit, "ConditionPathExists"),
    ];
    assert.ok(conditions.includes(`/usr/bin/${named}`), unit);
  }
  const [program = ""] = valuesOf("blksnapd.service", "ExecCondition").join("").split(" ");
  assert.ok(existsSync(join(folder, "../libexec", basename(program))), program);
});

test("a restart of the daemon's unit stops no other unit", () => {
  for (const unit of units) {
    for (const setting of ["Requires", "BindsTo", "PartOf", "Requisite"]) {
      assert.not.match(valuesOf(unit, setting).join(" "), "blksnapd.service", unit);
    }
  }
});

test("no unit that mounts wait for looks at what may be mounted on demand", () => {
  for (const unit of ["blksnap-front@.service", "blksnap-devices.service", "blksnapd.service"]) {
    for (const setting of ["ProtectSystem", "ProtectHome", "ReadWritePaths", "WorkingDirectory"]) {
      const paths = valuesOf(unit, setting).filter((path) => path !== "-/run/blksnap-boot");
      assert.equal(paths, [], `${unit}: ${setting}`);
    }
  }
});

test("each capability and each protection that is left out has its reason in the unit", () => {
  const text = textOf("blksnapd.service");
  const reasons = text
    .split("\n")
    .filter((line) => line.startsWith("#"))
    .join(" ");
  const capabilities = valuesOf("blksnapd.service", "CapabilityBoundingSet").join(" ").split(" ");
  assert.ok(capabilities.length > 5);
  for (const name of capabilities.map((capability) => capability.replace("CAP_", ""))) {
    assert.match(reasons, name.startsWith("DAC_") ? "DAC_*" : name);
  }
  for (const name of [
    ...["MemoryDenyWriteExecute", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices"],
    ...["ProtectClock", "PrivateMounts", "ProtectKernelTunables", "ProtectControlGroups"],
    ...["ProtectKernelLogs", "ProtectKernelModules", "ProtectHostname", "ProtectProc"],
    ...["PrivateUsers", "User", "PrivateNetwork", "IPAddressDeny", "UMask", "DeviceAllow"],
  ]) {
    assert.equal(valuesOf("blksnapd.service", name), [], "given, and not left out");
    assert.match(reasons, name);
  }
});

test("the unit forbids Internet sockets, and the error of an NBD address names the socket of systemd", () => {
  const [families = ""] = valuesOf("blksnapd.service", "RestrictAddressFamilies");
  assert.not.match(families, "AF_INET");
  assert.match(ERRORS.NBD_LISTEN_FAILED.hint, "blksnapd-nbd-tcp.socket");
});

test("the unit starts blksnapd with valid options, and waits as long as a start may take", () => {
  const [command = ""] = valuesOf("blksnapd.service", "ExecStart");
  const [program, ...words] = command.split(" ");
  assert.is(program, "/usr/bin/blksnapd");
  const values = parseOptions(words);
  assert.equal([values.supervise, values["stops-last"]], [true, true]);
  const wait = DEVICE_KEYS.get("wait-seconds");
  const most = wait?.type === "count" ? wait.most : Number.NaN;
  assert.ok(Number(valuesOf("blksnapd.service", "TimeoutStartSec")[0]) > most);
  assert.equal(valuesOf("blksnapd.service", "RestartPreventExitStatus"), [
    `${ExitStatus.USAGE} ${ExitStatus.LEFT}`,
  ]);
});

test("socket units have the daemon's paths and users, start early at boot, and cause no restart loop", () => {
  const places = {
    "blksnapd.socket": DEFAULT_SOCKET_PATH,
    "blksnapd-nbd.socket": nbdSocketPath(DEFAULT_SOCKET_PATH),
  };
  const tcp = "blksnapd-nbd-tcp.socket";
  const sockets = all.filter((name) => name.endsWith(".socket"));
  assert.equal(sockets.sort(), [...Object.keys(places), tcp].sort());
  for (const [unit, path] of Object.entries(places)) {
    assert.equal(valuesOf(unit, "ListenStream"), [path]);
    assert.equal(valuesOf(unit, "SocketMode"), ["0660"]);
    assert.equal(valuesOf(unit, "ExecStartPost"), [`-/bin/chgrp ${SOCKET_GROUP} ${path}`]);
  }
  for (const unit of sockets) {
    // By default it would come after sysinit.target, which comes after the daemon, which comes after its socket.
    assert.equal(valuesOf(unit, "DefaultDependencies"), ["no"]);
    assert.ok(Number(valuesOf(unit, "TriggerLimitBurst")[0]) > 0);
  }
  for (const unit of ["blksnapd-nbd.socket", tcp]) {
    const [name = ""] = valuesOf(unit, "FileDescriptorName");
    const given = { LISTEN_PID: "7", LISTEN_FDS: "1", LISTEN_FDNAMES: name };
    assert.equal(passedSockets(given, 7), [{ fd: 3, name: unit === tcp ? "nbd-tcp" : "nbd" }]);
    assert.equal(valuesOf(unit, "Service"), ["blksnapd.service"]);
  }
  const [address = ""] = valuesOf(tcp, "ListenStream");
  assert.ok(parseTcpAddress(address), "nbd-listen can name it");
});

test("nothing ends the daemon while fronts are in use", () => {
  const decided = {
    KillMode: ["process"],
    SendSIGKILL: ["no"],
    RefuseManualStop: ["yes"],
    Restart: ["on-failure"],
    StartLimitIntervalSec: ["0"],
    OOMScoreAdjust: ["-1000"],
    ManagedOOMPreference: ["omit"],
  };
  for (const [setting, values] of Object.entries(decided)) {
    assert.equal(valuesOf("blksnapd.service", setting), values, setting);
  }
});

test.run();
