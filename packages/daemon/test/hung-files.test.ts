/**
 * Originals and stores on a file system that does not answer: the daemon serves other devices meanwhile. On the real
 * kernel, with a FUSE file system that withholds answers.
 */
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, HungFileSystem } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Answer, CAPACITY_BYTES, detachedSoon, MIB, text, User } from "./nbd-user.js";

const test = suite("files that do not answer");
const isPossible = HungFileSystem.lacks === undefined;
const check = isPossible ? test : test.skip;
/** More than the threads that all file operations of the daemon share. */
const FILES = 20;
/** More than Node has by itself. */
const HUNG = 5;

let user: User;
let files: HungFileSystem;

test.before(async () => {
  if (!isPossible) return;
  user = new User();
  const mountPoint = join(user.folder, "hung");
  mkdirSync(mountPoint);
  files = await HungFileSystem.mount(mountPoint, FILES, 4 * MIB);
  await user.serve();
});

test.after(async () => {
  if (!isPossible) return;
  await files.end();
  await user.close();
});

function daemonPid(): number {
  return user.daemon?.pid as number;
}

function attach(device: string): Promise<Answer> {
  return user.ask("POST", "/v1/trackers", { device });
}

/** It has waited for its file to answer, but no longer than it may: this machine can be busy. */
function assertInTime({ code, front }: Answer): void {
  assert.ok(front !== undefined || code === "DEVICE_FAILED", code);
}

/** The last file, with nothing on its way. */
async function attachedAgain(): Promise<string> {
  const path = files.paths.at(-1) ?? "";
  await eventually("it is attached", async () => {
    const { code } = await attach(path);
    return code === undefined || code === "ALREADY_ATTACHED";
  });
  return path;
}

/** All that users may want of another device: each call needs the main thread, most need another one. */
async function otherDeviceIsServed(name: string): Promise<void> {
  const device = join(user.folder, name);
  writeFileSync(device, "");
  truncateSync(device, CAPACITY_BYTES);
  text(await attach(device), "front");
  const wish = { devices: [device], stores: [user.store], limit_bytes: 8 * MIB };
  const id = text(await user.ask("POST", "/v1/snapshots", wish), "id");
  const taken = await user.ask("POST", `/v1/snapshots/${id}/take`, {});
  assert.is(taken.code, undefined, JSON.stringify(taken));
  assert.is((await user.ask("GET", "/v1/status")).code, undefined);
  assert.is((await user.ask("DELETE", `/v1/snapshots/${id}`)).code, undefined);
  await detachedSoon(user, encodeURIComponent(device));
}

check("opens that hang do not keep other devices from being served", async () => {
  await files.withhold(["open"]);
  const attaching = files.paths.map((path) => attach(path));
  await eventually("open hangs", () => files.withheld("open") === FILES);
  await otherDeviceIsServed("other");
  await files.answer();
  for (const attached of await Promise.all(attaching)) assertInTime(attached);
});

check("a lock that hangs does not keep other devices from being served", async () => {
  const path = await attachedAgain();
  await detachedSoon(user, encodeURIComponent(path));
  await files.withhold(["setlk"]);
  const attaching = attach(path);
  await eventually("setlk hangs", () => files.withheld("setlk") === 1);
  await otherDeviceIsServed("other");
  await files.answer();
  assertInTime(await attaching);
});

check("opens that hang in the daemon leave it threads for other devices", async () => {
  const paths = files.paths.slice(-HUNG);
  for (const path of paths) await detachedSoon(user, encodeURIComponent(path));
  // Other processes are answered, so that this one opens them, too.
  await files.withhold(["open"], daemonPid());
  const before = files.withheld("open");
  const attaching = paths.map((path) => attach(path));
  await eventually("opens hang", () => files.withheld("open") === before + HUNG);
  await otherDeviceIsServed("other");
  await files.answer();
  for (const attached of await Promise.all(attaching)) assertInTime(attached);
  await attachedAgain();
});

check("an open that hangs is given up, and others there fail at once until it ends", async () => {
  const path = await attachedAgain();
  await detachedSoon(user, encodeURIComponent(path));
  // Other processes are answered, so that this one opens it, too.
  await files.withhold(["open"], daemonPid());
  const before = files.withheld("open");
  assert.is((await attach(path)).code, "DEVICE_FAILED");
  assert.is(files.withheld("open"), before + 1);
  assert.is((await attach(path)).code, "DEVICE_FAILED");
  assert.is(files.withheld("open"), before + 1, "another thread would hang");
  await otherDeviceIsServed("other");
  await files.answer();
  await attachedAgain();
});

check(
  "a detach whose file cannot be closed fails in time, and other devices are served",
  async () => {
    const path = await attachedAgain();
    await files.withhold(["flush"], daemonPid());
    const device = encodeURIComponent(path);
    const detaching = user.ask("DELETE", `/v1/trackers?device=${device}`);
    await eventually("flush hangs", () => files.withheld("flush") > 0);
    await otherDeviceIsServed("other");
    const detached = await detaching;
    assert.is(detached.code, "DEVICE_FAILED", JSON.stringify(detached));
    assert.match(JSON.stringify(detached), "does not answer");
    const status = (await user.ask("GET", "/v1/status")) as unknown as { trackers: Answer[] };
    assert.not.ok(status.trackers.some(({ device: one }) => one === path));
    await files.answer();
    // It is closed now, so it can be claimed again.
    await eventually("it is closed", async () => (await attach(path)).code === undefined);
  },
);

check("a store that cannot be opened does not keep other devices from being served", async () => {
  const path = await attachedAgain();
  await detachedSoon(user, encodeURIComponent(path));
  text(await attach(user.disk), "front");
  const before = files.withheld("setlk");
  await files.withhold(["setlk"]);
  const wish = { devices: [user.disk], stores: [path], limit_bytes: 2 * MIB };
  const creating = user.ask("POST", "/v1/snapshots", wish);
  await eventually("setlk hangs", () => files.withheld("setlk") > before);
  await otherDeviceIsServed("other");
  await files.answer();
  const { code } = await creating;
  assert.is(code, "STORE_FAILED", "this file system has no fallocate");
});

test.run();
