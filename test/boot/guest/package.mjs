/** What dpkg does while file systems are on fronts: an upgrade under a writer, a removal, an installation after it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Checker, json } from "./stacks.mjs";
import { run } from "./volumes.mjs";

const DRAFT = "/var/tmp/newer";
const NEWER = `${DRAFT}.deb`;
const UNIT = "blksnapd.service";

const show = (property) => run("systemctl", "show", "-P", property, UNIT).trim();
const fronts = () => readdirSync("/sys/class/block").filter((name) => name.startsWith("ublkb"));
const installed = () => run("dpkg", "--status", "blksnap");
const generations = () =>
  Object.fromEntries(
    json("status").trackers.map(({ device }) => [
      device,
      json("cbtinfo", "--device", device).generation_id,
    ]),
  );

/** The same package, of a later version. */
function buildNewer() {
  const deb = readdirSync("/root").find((name) => name.endsWith(".deb"));
  run("dpkg-deb", "--raw-extract", `/root/${deb}`, DRAFT);
  const control = `${DRAFT}/DEBIAN/control`;
  const text = readFileSync(control, "utf8");
  writeFileSync(control, text.replace(/^Version: .*$/m, "$&+later"));
  run("dpkg-deb", "-Znone", "--build", DRAFT, NEWER);
  rmSync(DRAFT, { recursive: true });
}

/** Says what it is that keeps the daemon, which goes on. */
function assertRefused(...command) {
  const before = [show("MainPID"), json("status").daemon.pid];
  const { status, stdout, stderr } = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
  assert.notEqual(status, 0, command.join(" "));
  assert.deepEqual([show("MainPID"), json("status").daemon.pid], before);
  assert.equal(show("ActiveState"), "active");
  return `${stdout}${stderr}`;
}

/** @param {string[]} units mounts on fronts, then volumes of crypttab that lie on one */
export async function changePackage(units) {
  buildNewer();
  const before = { supervisor: show("MainPID"), pid: json("status").daemon.pid };
  const known = generations();
  const checker = new Checker("package", "/srv/uuid");
  await checker.turn();
  run("dpkg", "--install", NEWER);
  await checker.turn();
  assert.match(installed(), /^Version: .*\+later$/m);
  assert.equal(show("MainPID"), before.supervisor);
  assert.notEqual(json("status").daemon.pid, before.pid);
  assert.deepEqual(generations(), known);
  for (const verb of ["restart", "stop"]) assertRefused("systemctl", verb, UNIT);
  assert.match(assertRefused("dpkg", "--remove", "blksnap"), /mounted at \/srv\/uuid/);
  assert.match(installed(), /^Status: \w+ ok installed$/m);
  await checker.stop();
  run("systemctl", "stop", ...units);
  run("dpkg", "--remove", "blksnap");
  assert.deepEqual([fronts(), show("ActiveState")], [[], "inactive"]);
  run("systemctl", "start", ...units.toReversed());
  assert.equal(run("findmnt", "-no", "SOURCE", "/srv/uuid").trim(), "/dev/mapper/vg-uuid");
  run("dpkg", "--install", NEWER);
  assert.equal(show("ActiveState"), "active");
  const { missing } = json("status").daemon.configuration;
  const busy = missing.filter(({ code }) => code === "DEVICE_BUSY").map(({ device }) => device);
  assert.ok(busy.includes("/dev/vg/uuid"), JSON.stringify(missing));
}
