/**
 * State that another version has written: fixtures/state-of-23c937c6.tar.gz is that of a persistent tracker, left by the
 * daemon of this repository's commit 23c937c6 (2026-11-28) after an orderly stop, with the disk that it tracked. After a
 * take that daemon had recorded the writes of a file whose every line is WRITTEN.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { medium } from "../lib/medium.mjs";
import { scenario } from "../lib/scenario.mjs";

const FIXTURE = fileURLToPath(new URL("../fixtures/state-of-23c937c6.tar.gz", import.meta.url));
const DEVICE = "/dev/mapper/older-state";
const DM_UUID = "TEST-older-state";
const GENERATION = "6ccf0f5b-4d09-ce61-2380-e0b425c4c480";
const CHANGES_NUMBER = 1;
const WRITTEN = "by an older version\n";
const LIMIT_BYTES = 64 * 2 ** 20;

const test = scenario(import.meta.url, { daemon: false });

/** The disk that was tracked, in a machine that has never had it, and a medium with what was recorded of it. */
async function olderState(t) {
  const disk = await medium(t);
  await run(["tar", "-xzf", FIXTURE, "-C", disk.path]);
  const file = join(disk.path, "disk");
  const loop = (await run(["losetup", "--find", "--show", file])).trim();
  t.defer(() => run(["losetup", "-d", loop]));
  const { length } = readFileSync(file);
  const table = `0 ${length / 512} linear ${loop} 0`;
  await run(["dmsetup", "create", "older-state", "--uuid", DM_UUID, "--table", table]);
  t.defer(() => run(["dmsetup", "remove", "--retry", "older-state"]));
  return { disk, content: readFileSync(file) };
}

const recordsOf = ({ state }) =>
  readdirSync(state)
    .filter((name) => name !== "lock")
    .toSorted()
    .map((name) => [name, readFileSync(join(state, name), "latin1")]);

test("tracking continues from the state of an older version, with the changes that it recorded", async (t) => {
  const { disk, content } = await olderState(t);
  t.daemon = await disk.start();
  t.defer(() => t.daemon.stop());
  const [tracker] = (await t.client.status()).trackers;
  assert.is(tracker.device, DEVICE);
  assert.is(tracker.cbt.generation_id, GENERATION, t.daemon.log());
  assert.is(tracker.persistence.state, "on");
  const { id } = await t.client.snapshotCreate({
    devices: [DEVICE],
    stores: [disk.stores],
    limitBytes: LIMIT_BYTES,
  });
  await t.client.snapshotTake(id);
  const { ranges } = await t.client.diff(DEVICE, CHANGES_NUMBER);
  await t.client.snapshotDestroy(id);
  const isListed = (at) =>
    ranges.some(
      (range) => range.offset_bytes <= at && at < range.offset_bytes + range.length_bytes,
    );
  const found = [];
  for (let at = content.indexOf(WRITTEN); at >= 0; at = content.indexOf(WRITTEN, at + 1))
    found.push(at);
  assert.ok(found.length > 10_000);
  assert.equal(
    found.filter((at) => !isListed(at)),
    [],
  );
  const listed = ranges.reduce((sum, range) => sum + range.length_bytes, 0);
  assert.ok(listed < content.length / 2, `${listed} bytes are listed`);
  await t.client.detach(DEVICE, { forget: true });
});

test("state of a newer version is refused by name, and stays as it is", async (t) => {
  const { disk } = await olderState(t);
  const [name] = readdirSync(disk.state).filter((one) => one.endsWith(".record"));
  const path = join(disk.state, name);
  writeFileSync(
    path,
    readFileSync(path, "utf8").replace(/^blksnap-record \d+ /, "blksnap-record 9 "),
  );
  const before = recordsOf(disk);
  t.daemon = await disk.start();
  t.defer(() => t.daemon.stop());
  assert.match(t.daemon.log(), new RegExp(`${name.slice(0, -".record".length)}.*has version 9`));
  assert.equal((await t.client.status()).trackers, []);
  const now = recordsOf(disk).filter(([one]) => before.some(([other]) => other === one));
  assert.equal(now, before);
});

test.run();
