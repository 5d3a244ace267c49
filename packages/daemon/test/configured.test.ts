/** The configuration during a daemon's life: attaches that are held back, and requests of users meanwhile. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import type { DriverControl } from "@blksnap/api";
import { pino } from "pino";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Configured } from "../dist/config/configured.js";
import { ServedFile } from "../dist/config/served.js";

const test = suite("configured");
const DEVICES = ["/dev/vg/a", "/dev/vg/b"].map((device, line) => {
  return { device, persistent: false, waitSeconds: 0, from: `/c:${line}` };
});

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-configured-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

function coded(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** A daemon whose driver attaches nothing until the unknown front is reported as gone. */
function daemon() {
  const attached: string[] = [];
  const asked: string[] = [];
  let release: (isOver: boolean) => void = () => undefined;
  const held = {
    isHolding: true,
    over: new Promise<boolean>((resolve) => {
      release = resolve;
    }),
  };
  const driver = {
    held,
    attach: async (device: string, options: object) => {
      asked.push(device);
      if (held.isHolding) throw coded("DEVICE_BUSY");
      assert.equal(options, { persistent: false, kind: "front" });
      attached.push(device);
      const answer = { device, front: "/dev/ublkb0", already_attached: false, persistent: false };
      return { ...answer, attach_kind: "front" as const, live: null };
    },
    detach: async (device: string) => {
      if (!attached.includes(device)) throw coded(device === "/dev/bad" ? "EIO" : "NOT_ATTACHED");
      return { device, front: "/dev/ublkb0" };
    },
    version: async () => ({ version: "1" }),
  };
  const config = { values: new Map(), devices: DEVICES };
  const inForce = { config, files: [], values: {}, origins: new Map(), problems: [] };
  const values = { "state-dir": folder };
  const logger = pino({ level: "silent" });
  const configured = new Configured({ ...inForce, isEarlier: false }, values, logger);
  const over = async (isOver: boolean): Promise<void> => {
    held.isHolding = !isOver;
    release(isOver);
    for (let turns = 0; turns < 10; turns++) await turn();
  };
  const control = configured.watching(driver as unknown as DriverControl);
  return { configured, driver, attached, asked, over, control };
}

const missing = (configured: Configured) =>
  configured
    .status()
    .missing.map(({ device }) => device)
    .sort();
const waited = () => new ServedFile(folder).read()?.waited?.map((one) => one.configured.device);

test("a device that an unknown front holds back is attached when that is gone, and the start does not wait for it", async () => {
  const { configured, driver, attached, asked, over } = daemon();
  await configured.attachTo(driver);
  const all = DEVICES.map(({ device }) => device);
  assert.equal([asked, attached, missing(configured)], [all, [], all]);
  assert.equal(waited(), all, "it is the next daemon's, too");
  await over(true);
  assert.equal([attached, missing(configured), waited()], [all, [], []]);
});

test("such a device is not attached if the daemon ends before that", async () => {
  const { configured, driver, asked, over } = daemon();
  await configured.attachTo(driver);
  asked.length = 0;
  await over(false);
  assert.equal(asked, []);
});

test("daemons that are replaced by newer ones do not count as having died over a device", async () => {
  const all = DEVICES.map(({ device }) => device);
  for (let upgrades = 0; upgrades < 6; upgrades++) {
    const { configured, driver } = daemon();
    await configured.attachTo(driver);
    configured.end(true);
    assert.equal(waited(), all);
  }
  const { configured, driver, attached, over } = daemon();
  await configured.attachTo(driver);
  await over(true);
  assert.equal([attached, missing(configured)], [all, []]);
});

test("a detach fails with the driver's error, and a pending attach stays pending", async () => {
  const { configured, driver, attached, over, control } = daemon();
  await configured.attachTo(driver);
  driver.detach = async () => {
    throw coded("NO_ANSWER");
  };
  assert.is(await control.detach("/dev/vg/a", {}).catch(({ code }) => code), "NO_ANSWER");
  const all = DEVICES.map(({ device }) => device);
  assert.equal([missing(configured), waited()], [all, all]);
  await over(true);
  assert.equal(attached, all);
});

test("a detach gives up a pending attach, and otherwise is the driver's", async () => {
  const { configured, driver, attached, over, control } = daemon();
  await configured.attachTo(driver);
  assert.equal(await control.detach("/dev/vg/a", {}), { device: "/dev/vg/a", front: "" });
  assert.equal([missing(configured), waited()], [["/dev/vg/b"], ["/dev/vg/b"]]);
  const failing = async (device: string): Promise<string> =>
    control.detach(device, {}).then(
      () => "",
      ({ code }) => code,
    );
  assert.equal([await failing("/dev/vg/a"), await failing("/dev/bad")], ["NOT_ATTACHED", "EIO"]);
  await over(true);
  assert.equal(attached, ["/dev/vg/b"]);
  assert.equal(await control.detach("/dev/vg/b", {}), {
    device: "/dev/vg/b",
    front: "/dev/ublkb0",
  });
  assert.equal(await control.version(), { version: "1" });
});

test.run();
