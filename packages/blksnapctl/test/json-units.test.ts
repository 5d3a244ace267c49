/** Output of --json: each number is an integer and names its unit, if it has one. */
import { join } from "node:path";
import { BackupStore } from "@blksnap/backup";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { verbs } from "../dist/catalog.js";
import { startHarness } from "./harness.js";
import { unitProblems } from "./unit-problems.js";

const NO_UUID = "00000000-0000-4000-8000-000000000000";

test("each verb's JSON has units in its names", async () => {
  const harness = await startHarness();
  const { driver, dir } = harness;
  const told = new Set<string>();
  async function json(verb: string, ...args: string[]): Promise<Record<string, unknown>> {
    const { out } = await harness.run(verb, ...args, "--json");
    const documents = out.trim().split("\n");
    for (const one of documents) {
      assert.equal(unitProblems(JSON.parse(one), verb), []);
    }
    told.add(verb);
    return JSON.parse(documents[0]!);
  }

  const device = ["-d", "/dev/loop0"];
  await json("version");
  await json("attach", ...device);
  await json("detach", ...device);
  const { id } = await json("snapshot_create", ...device, "-f", "/var/tmp", "-l", "2G");
  const snapshot = ["-i", String(id)];
  await json("snapshot_add", ...snapshot, "-d", "/dev/loop1");
  await json("markdirtyblock", ...device, "--ranges", "0:8");
  await json("markdirtyblock", "--file", "/var/tmp/file");
  await json("snapshot_take", ...snapshot);
  await json("snapshot_info", ...device);
  await json("snapshot_collect");
  await json("nbd", "list");
  await json("cbtinfo", ...device);
  await json("readcbtmap", ...device, "-f", join(dir, "map"));
  const { ranges } = await json("diff", ...device, "--since", "0");
  assert.equal(ranges, [
    { offset_bytes: 0, length_bytes: 65_536, kind: "changed" },
    { offset_bytes: 1_048_576, length_bytes: 65_536, kind: "changed" },
    { offset_bytes: 2_097_152, length_bytes: 65_536, kind: "changed" },
  ]);
  const { events } = driver.snapshots.get(String(id))!;
  const sizes = { allocated_bytes: 1, limit_bytes: 1, used_bytes: 1 };
  events.push({ event: "no_space", ...sizes });
  events.push({ event: "low_free_space", wanted_bytes: 1, free_bytes: 1, errno: null });
  events.push({ event: "corrupted", device: "/dev/loop0", major: 7, minor: 0, errno: 28 });
  await json("events", ...snapshot);
  await json("snapshot_waitevent", ...snapshot, "-t", "0");
  await json("snapshot_watcher", ...snapshot);
  const status = (await json("status")) as { trackers: { capacity_bytes: number }[] };
  assert.is(status.trackers[0]?.capacity_bytes, 64 * 2 ** 20);
  await json("doctor", "--state-dir", dir);
  await json("config", "check", "-f", join(dir, "no.toml"));
  await json("completion", "bash");
  // Its image is no device here, and nothing is mounted: only errors.
  assert.ok("error" in (await json("mount", "/dev/loop0", dir)));
  assert.ok("error" in (await json("umount", dir)));
  // Its image is no file here: only the error of export, and the output for an empty folder.
  await BackupStore.openOrCreate(join(dir, "backups"));
  const backups = ["--from", join(dir, "backups")];
  await json("export", ...device, "--to", join(dir, "backups"));
  await json("list", ...backups);
  await json("verify", ...backups);
  await json("restore", ...backups, "--to", join(dir, "restored"));
  await json("prune", ...backups, "--keep-last", "1");
  await json("gc", ...backups);
  await json("snapshot_destroy", ...snapshot);
  assert.ok("error" in (await json("snapshot_destroy", "-i", NO_UUID)));
  await json("daemon", "upgrade");
  await json("daemon", "stop", "--keep");
  assert.equal(
    verbs.map(({ name }) => name).filter((name) => !told.has(name)),
    [],
  );
  await harness.stop();
});

test.run();
