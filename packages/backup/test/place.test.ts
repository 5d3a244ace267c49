import {
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkApart, checkOpenApart, checkUntracked } from "../dist/place.js";
import type { BackupClient } from "../dist/snapshot.js";
import { failureOf } from "./fake-machine.js";

const test = suite("place of a target");
let folder: string;
let device: string;

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-place-"));
  device = join(folder, "disk");
  writeFileSync(device, Buffer.alloc(4096));
});
test.after.each(() => rmSync(folder, { recursive: true }));

/** Of a daemon that tracks an image file, as with --frontend nbd. */
function client(): BackupClient {
  const front = `nbd+unix:///front/disk?socket=${folder}/nbd.sock`;
  const status = { trackers: [{ device, front }], snapshots: [] };
  return {
    snapshotInfo: () => Promise.resolve({ device }),
    status: () => Promise.resolve(status),
  } as unknown as BackupClient;
}

/** All names of the tracked file. */
function namesOf(): readonly string[] {
  const [link, second, up] = ["link", "second", "folder"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  symlinkSync("disk", link);
  linkSync(device, second);
  mkdirSync(up);
  return [device, link, second, join(up, "..", "disk")];
}

test("the exported file itself is refused as target, by any of its names", async () => {
  for (const name of namesOf()) {
    const { code, message } = await failureOf(checkApart(client(), name, device));
    assert.is(code, "TARGET_ON_DEVICE", name);
    assert.match(message, device);
  }
});

test("a file that the daemon tracks is refused as target of a restore, by any of its names", async () => {
  for (const name of namesOf()) {
    const { code } = await failureOf(checkUntracked(client(), name));
    assert.is(code, "TARGET_IN_USE", name);
  }
});

test("standard output that leads into the exported file is refused", async () => {
  const fd = openSync(device, "r+");
  try {
    const { code } = await failureOf(checkOpenApart(client(), fd, device));
    assert.is(code, "TARGET_ON_DEVICE");
  } finally {
    closeSync(fd);
  }
});

test("other files beside it are no reason to refuse, nor those that do not exist yet", async () => {
  const copy = join(folder, "copy");
  for (const target of [copy, join(folder, "new", "store"), folder]) {
    await checkApart(client(), target, device);
    await checkUntracked(client(), target);
  }
  writeFileSync(copy, "");
  await checkApart(client(), copy, device);
  await checkUntracked(client(), copy);
});

test.run();
