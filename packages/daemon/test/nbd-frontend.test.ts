/**
 * blksnapd --frontend nbd as users run it: a process on this machine, without ublk, also of a non-root user; killed,
 * and started again.
 */
import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { BASE_ALLOCATION, NbdClient } from "@blksnap/nbd";
import { lacksRoot, testUnless } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type Answer,
  CAPACITY_BYTES,
  contentOf,
  detachedSoon,
  isRoot,
  MIB,
  text,
  User,
} from "./nbd-user.js";

const test = suite("blksnapd --frontend nbd");
/** The user nobody, in all distributions. */
const NOBODY = 65_534;

const OLD = Buffer.alloc(MIB, 0x11);
const NEW = Buffer.alloc(MIB, 0x22);

async function writeBefore(uri: string): Promise<Buffer> {
  const client = await NbdClient.connect(uri);
  await client.write(0, OLD);
  await client.write(4 * MIB, OLD);
  await client.flush();
  const all = Buffer.from(await client.read(0, CAPACITY_BYTES));
  await client.close();
  assert.ok(all.subarray(4 * MIB, 5 * MIB).equals(OLD));
  return all;
}

/** All ways to write to it. */
async function writeAfter(uri: string): Promise<void> {
  const client = await NbdClient.connect(uri);
  assert.not(client.readOnly);
  await client.write(MIB / 2, NEW, { fua: true });
  await client.trim(4 * MIB, MIB / 2);
  await client.writeZeroes(8 * MIB, MIB);
  await client.flush();
  await client.close();
}

/**
 * Holes that an export reports: they must be zeros, and third-party programs that skip them must make an equal copy.
 */
async function holeBytes(user: User, uri: string, content: Buffer): Promise<number> {
  const client = await NbdClient.connect(uri, { contexts: [BASE_ALLOCATION] });
  let bytes = 0;
  for await (const { offsetBytes, lengthBytes, flags } of client.extents(BASE_ALLOCATION)) {
    if (flags === 0) continue;
    const hole = content.subarray(offsetBytes, offsetBytes + lengthBytes);
    assert.ok(hole.equals(Buffer.alloc(lengthBytes)), `${offsetBytes} is not a hole`);
    bytes += lengthBytes;
  }
  await client.close();
  const copy = join(user.folder, "copy");
  for (const [program, ...words] of [
    ["nbdcopy", uri, copy],
    ["qemu-img", "convert", "-f", "raw", "-O", "raw", uri, copy],
  ] as const) {
    await promisify(execFile)(program, words);
    assert.ok(readFileSync(copy).equals(content), program);
    rmSync(copy);
  }
  return bytes;
}

async function changedBytes(user: User): Promise<number> {
  const path = `/v1/trackers/cbt/diff?device=${encodeURIComponent(user.disk)}&since=0`;
  const { ranges } = (await user.ask("GET", path)) as { ranges?: { length_bytes: number }[] };
  return (ranges ?? []).reduce((sum, range) => sum + range.length_bytes, 0);
}

async function deviceOf(user: User): Promise<Answer> {
  const { trackers } = (await user.ask("GET", "/v1/status")) as unknown as { trackers: Answer[] };
  assert.is(trackers.length, 1);
  return trackers[0] as Answer;
}

async function livesThrough(user: User): Promise<void> {
  const device = encodeURIComponent(user.disk);
  await user.serve();
  const front = text(await user.ask("POST", "/v1/trackers", { device: user.disk }), "front");
  assert.match(front, `socket=${user.runtime}`);
  const before = await writeBefore(front);

  const created = await user.ask("POST", "/v1/snapshots", {
    devices: [user.disk],
    stores: [user.store],
    limit_bytes: 64 * MIB,
  });
  const snapshot = `/v1/snapshots/${text(created, "id")}`;
  const required = await user.ask("POST", `${snapshot}/take?require_freeze=true`);
  assert.is(required.code, "FREEZE_FAILED");
  assert.is((await user.ask("POST", `${snapshot}/take`)).code, undefined);
  await writeAfter(front);
  const image = text(await user.ask("GET", `/v1/trackers/snapshot?device=${device}`), "image");
  assert.ok((await contentOf(image)).equals(before), "the image shows the instant of take");
  const written = await contentOf(front);
  assert.not.ok(written.equals(before));
  assert.ok(written.subarray(MIB / 2, MIB / 2 + MIB).equals(NEW));
  const client = await NbdClient.connect(image);
  assert.ok(client.readOnly);
  assert.ok((await changedBytes(user)) >= 2 * MIB);
  // Of 16 MiB two hold data, and two and a half were written since. The daemon limits its search for holes before it
  // serves: on a busy machine a later connection gets them.
  for (const [uri, content] of [
    [image, before],
    [front, written],
  ] as const) {
    while ((await holeBytes(user, uri, content)) < 11 * MIB) await sleep(100);
  }

  await user.end("SIGKILL");
  await client.close().catch(() => undefined);
  await user.serve();
  const found = await deviceOf(user);
  assert.equal([found["front"], found["image"]], [front, image]);
  assert.ok((await contentOf(image)).equals(before), "the image outlives its daemon");
  assert.ok((await contentOf(front)).equals(written));
  assert.ok((await changedBytes(user)) >= 2 * MIB, "so does what was changed");

  const open = await NbdClient.connect(front);
  const refused = await user.ask("POST", "/v1/daemon/stop", { keep: false });
  assert.is(refused.code, "DAEMON_IN_USE", JSON.stringify(refused));
  assert.is((await user.ask("DELETE", snapshot)).code, undefined);
  const kept = await user.ask("DELETE", `/v1/trackers?device=${device}`);
  assert.is(kept.code, "FRONT_IN_USE");
  await open.write(0, NEW);
  await open.close();
  await detachedSoon(user, device);
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

test("fronts are written to, images read, and both outlive a daemon that is killed", async () => {
  const user = new User();
  try {
    await livesThrough(user);
  } finally {
    await user.close();
  }
});

async function givesUp(user: User): Promise<void> {
  const device = encodeURIComponent(user.disk);
  await user.serve();
  assert.is((await user.ask("POST", "/v1/trackers", { device: user.disk })).code, undefined);
  await user.end("SIGKILL");
  // Renaming the file would not be enough, because it is found by its inode.
  rmSync(user.disk);
  await user.serve();
  const waiting = async () => (await user.ask("GET", "/v1/status"))["waiting"];
  assert.is(((await waiting()) as unknown[]).length, 1);
  const given = await user.ask("DELETE", `/v1/trackers?device=${device}`);
  assert.equal([given.code, given["device"]], [undefined, user.disk]);
  assert.equal(await waiting(), []);
  assert.is((await user.ask("DELETE", `/v1/trackers?device=${device}`)).code, "DEVICE_NOT_FOUND");
  writeFileSync(user.disk, OLD);
  assert.is((await user.ask("POST", "/v1/trackers", { device: user.disk })).code, undefined);
  assert.is((await user.ask("DELETE", `/v1/trackers?device=${device}`)).code, undefined);
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

test("a front whose original never comes back can be given up", async () => {
  const user = new User();
  try {
    await givesUp(user);
  } finally {
    await user.close();
  }
});

// A user who is not root runs the test above as that user.
testUnless(test, lacksRoot())("the same holds for a user who is not root", async () => {
  const user = new User(NOBODY);
  try {
    await livesThrough(user);
  } finally {
    await user.close();
  }
});

test("doctor asks for neither ublk nor root", async () => {
  const user = new User(isRoot ? NOBODY : undefined);
  try {
    await user.serve();
    const checks = await user.doctor();
    const names = checks.map(({ check }) => check);
    assert.ok(names.includes("frontend"), names.join(" "));
    for (const absent of ["privilege", "ublk_module", "ublk_control", "io_flusher"]) {
      assert.not.ok(names.includes(absent), absent);
    }
    const errors = checks.filter(({ state }) => state === "error");
    assert.equal(errors, []);
    await user.end("SIGTERM");
  } finally {
    await user.close();
  }
});

test("operations that need block devices are refused with a named error", async () => {
  const user = new User();
  try {
    await user.serve();
    const body = { device: user.disk, kind: "live" };
    assert.is((await user.ask("POST", "/v1/trackers", body)).code, "LIVE_UNSUPPORTED");
    await user.end("SIGTERM");
  } finally {
    await user.close();
  }
});

test.run();
