/** export, restore and maintenance of backups, as a user runs them, on a fake daemon with files as images. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { open, readdir, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FakeS3 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { eventually, type Harness, type Outcome, program, startHarness } from "./harness.js";
import { unitProblems } from "./unit-problems.js";

const CAPACITY_BYTES = 64 * 2 ** 20;
const DEVICE = "/dev/loop0";

let harness: Harness;
/** Content of the device's images. */
let content: Buffer;
test.before.each(async () => {
  harness = await startHarness();
  const { driver, dir } = harness;
  content = Buffer.alloc(CAPACITY_BYTES);
  content.set(randomBytes(2 ** 20), 5 * 2 ** 20);
  const image = join(dir, "image");
  await writeFile(image, content);
  const snapshotInfo = driver.snapshotInfo.bind(driver);
  driver.snapshotInfo = async (device) => {
    const info = await snapshotInfo(device);
    return info.image === null ? info : { ...info, image };
  };
  await driver.attach(DEVICE);
});
test.after.each(() => harness.stop());

function inFolder(name: string): string {
  return join(harness.dir, name);
}

function documents(out: string): Record<string, unknown>[] {
  const all = out.trimEnd().split("\n");
  return all.map((line) => {
    const document = JSON.parse(line) as Record<string, unknown>;
    assert.equal(unitProblems(document, "document"), []);
    return document;
  });
}

test("export, list, restore, verify, prune and gc, one after the other", async () => {
  const backups = inFolder("backups");
  const words = ["export", "-d", DEVICE, "--to", backups, "--auto"];
  const first = await harness.ok(...words);
  assert.match(first, /^starts a full one: the target has no backup of \/dev\/loop0 yet\n/);
  assert.match(first, /\nfull: \/dev\/loop0 as of snapshot 1, 64\.0 MiB read, .* stored as /);
  assert.is(harness.driver.snapshots.size, 0);
  const [begun, ...rest] = documents(await harness.ok(...words, "--json"));
  assert.is(begun?.["event"], "begun");
  assert.is(begun?.["kind"], "incremental");
  assert.is(rest.at(-1)?.["event"], "done");
  const table = await harness.ok("list", "--from", backups);
  assert.match(table, /^POINT +TAKEN +DEVICE +HOST +KIND +NUMBER +READ +STORED\n/);
  const [{ points }] = documents(await harness.ok("list", "--from", backups, "--json")) as [
    { points: { id: string; chunks?: unknown }[] },
  ];
  assert.is(points.length, 2);
  assert.is(points[0]!.chunks, undefined);
  const target = inFolder("restored");
  await harness.ok("restore", "--from", backups, "--to", target, "--at", points[0]!.id.slice(0, 8));
  assert.ok((await readFile(target)).equals(content));
  assert.match(await harness.ok("verify", "--from", backups), "verified: 2 points");
  const pruned = await harness.ok("prune", "--from", backups, "--keep-last", "1");
  assert.match(pruned, `removed ${points[0]!.id}`);
  assert.match(await harness.ok("gc", "--from", backups), /^freed /);
});

test("restore --nbd serves a point until it is interrupted", async () => {
  const [backups, socket] = [inFolder("backups"), inFolder("point.sock")];
  await harness.ok("export", "-d", DEVICE, "--to", backups);
  const browsing = harness.start("restore", "--from", backups, "--nbd", socket);
  await eventually("it serves", () => browsing.out().includes("\n"));
  const uri = browsing.out().trim();
  assert.match(uri, new RegExp(`^nbd\\+unix:///[0-9a-f-]{36}\\?socket=${socket}$`));
  const copy = inFolder("copied");
  execFileSync("nbdcopy", [uri, copy]);
  assert.ok((await readFile(copy)).equals(content));
  browsing.child.kill("SIGINT");
  const { status, err } = await browsing.outcome;
  assert.equal([status, err], [0, ""]);
  for (const words of [["--to", copy, "--nbd", socket], ["--nbd", socket, "--delta"], []]) {
    assert.is((await harness.run("restore", "--from", backups, ...words)).status, 2);
  }
});

test("a raw copy, and its error if the file is not blksnap's", async () => {
  const target = inFolder("copy");
  await harness.ok("export", "-d", DEVICE, "--to", target, "--raw");
  assert.ok((await readFile(target)).equals(content));
  const { status, err } = await harness.run("export", "-d", DEVICE, "--to", target);
  assert.is(status, 2);
  assert.match(err, "is not a folder. Name a folder, or give --raw");
  await writeFile(inFolder("thesis"), "text");
  const other = await harness.run("export", "-d", DEVICE, "--to", inFolder("thesis"), "--raw");
  assert.match(other.err, "[TARGET_EXISTS]");
  assert.is(await readFile(inFolder("thesis"), "utf8"), "text");
});

test("verify names what has changed in a raw copy and in qcow2 files, and ends with status 1", async () => {
  const [target, chain] = [inFolder("copy"), inFolder("chain")];
  await harness.ok("export", "-d", DEVICE, "--to", target, "--raw");
  await harness.ok("export", "-d", DEVICE, "--to", chain, "--qcow2");
  const [name] = (await readdir(chain)).filter((one) => one.endsWith(".qcow2"));
  const place = 5 * 2 ** 20;
  assert.is(await harness.ok("verify", "-f", target), "verified: 1 point, 64.0 MiB compared\n");
  assert.match(await harness.ok("verify", "-f", chain, "--at", name!), "verified: 1 point");
  await writeFile(
    target,
    content.map((byte, at) => (at === place ? byte ^ 1 : byte)),
  );
  const { status, out, err } = await harness.run("verify", "-f", target);
  assert.is(status, 1);
  assert.match(
    out,
    `${target} is damaged: it differs from what was exported, at bytes ${place} to `,
  );
  assert.match(err, "another program has written to");
  assert.match(err, "[BACKUP_DAMAGED]");
  const told = documents((await harness.run("verify", "-f", target, "--json")).out);
  assert.match(JSON.stringify(told.at(-2)), `"offset_bytes":${place}`);
  const wrong = [
    ["-f", target, "--at", "2038"],
    ["-f", chain, "--record", "x"],
    ["-f", target, "--region", "x"],
  ];
  for (const words of wrong) assert.is((await harness.run("verify", ...words)).status, 2);
  const restored = await harness.run("restore", "-f", target, "-t", inFolder("restored"));
  assert.match(restored.err, `${target} is not a folder of backups`);
  await rm(target);
  assert.match((await harness.run("verify", "-f", target)).err, `${target} is gone, which`);
});

test("an export that frees nothing says why before it copies, unless the user knows", async () => {
  const [large, capacityBytes] = ["/dev/loop1", 256 * 2 ** 20];
  await truncate(inFolder("image"), capacityBytes);
  harness.driver.devices.set(large, capacityBytes);
  await harness.driver.attach(large);
  const words = ["export", "-d", large, "--to", inFolder("backups")];
  const line = "old data is not freed before the end: the daemon serves no NBD\n";
  assert.ok((await harness.ok(...words)).startsWith(line));
  const keptOf = async (...more: string[]) =>
    documents(await harness.ok(...words, ...more, "--json"))[0]?.["kept"];
  assert.is(await keptOf(), "no_nbd_server");
  assert.is(await keptOf("--no-free"), "not_wanted");
  assert.not.match(await harness.ok(...words, "--no-free"), "frees");
  const small = documents(await harness.ok("export", "-d", DEVICE, "-t", inFolder("x"), "--json"));
  assert.is(small[0]?.["kept"], "little_to_read");
});

test("a bucket can be used like a folder; options for buckets are only for them", async () => {
  const s3 = await FakeS3.listen();
  const before = { ...process.env };
  try {
    const { AWS_ENDPOINT_URL_S3: endpoint = "", ...environment } = s3.environment;
    Object.assign(process.env, environment);
    const words = ["s3://backups/all/hosts/", "--endpoint", endpoint];
    assert.match(await harness.ok("export", "-d", DEVICE, "--auto", "-t", ...words), /^full: /m);
    assert.match(await harness.ok("list", "-f", ...words), DEVICE);
    const [, ...others] = words;
    assert.match(await harness.ok("list", "-f", "S3://backups/all/hosts", ...others), DEVICE);
    const target = inFolder("restored");
    await harness.ok("restore", "--to", target, "-f", ...words);
    assert.ok((await readFile(target)).equals(content));
    assert.match(await harness.ok("verify", "-f", ...words), "verified: 1 point");
    const raw = await harness.run("export", "-d", DEVICE, "--raw", "-t", ...words);
    assert.match(raw.err, /^blksnapctl: export: raw: a bucket takes only points in time/);
    const region = await harness.run("list", "-f", ...words, "--region", "x y");
    assert.equal([region.status, region.err.includes("region")], [2, true]);
    process.env["AWS_SECRET_ACCESS_KEY"] = "";
    const poor = await harness.run("list", "-f", ...words);
    assert.match(poor.err, "has no credentials");
    const wrong = ["s3://", "s3://id:key@backups", "s3://backups/a//b", "s3://backups/../x"];
    for (const url of [...wrong, "gs://id:key@backups/x", "file:///tmp/backups"]) {
      const { status, err } = await harness.run("list", "-f", url);
      assert.is(status, 2, url);
      assert.not.match(err, "key@");
    }
  } finally {
    process.env = before;
    s3.close();
  }
});

test("tracked devices are refused as targets, because the writes would be missed", async () => {
  const backups = inFolder("backups");
  await harness.ok("export", "-d", DEVICE, "--to", backups);
  const original = inFolder("original");
  await writeFile(original, "as it was");
  harness.driver.devices.set(original, CAPACITY_BYTES);
  await harness.driver.attach(original);
  await symlink(original, inFolder("link"));
  for (const target of [original, inFolder("link")]) {
    const runs = [
      await harness.run("restore", "--from", backups, "--to", target, "--delta"),
      await harness.run("export", "-d", DEVICE, "--to", target, "--raw"),
    ];
    for (const { status, err } of runs) {
      assert.is(status, 1);
      assert.match(err, "is the tracked device");
      assert.match(err, "[TARGET_IN_USE]");
    }
  }
  assert.is(await readFile(original, "utf8"), "as it was");
});

test("damage ends verify with status 1, names the chunk's file, and restore names it too", async () => {
  const backups = inFolder("backups");
  await harness.ok("export", "-d", DEVICE, "--to", backups);
  const chunks = join(backups, "chunks");
  const names = await readdir(chunks, { recursive: true });
  const file = join(chunks, names.find((name) => name.endsWith(".zst"))!);
  const bytes = await readFile(file);
  bytes[bytes.length - 1]! ^= 1;
  await writeFile(file, bytes);
  const { status, out, err } = await harness.run("verify", "--from", backups);
  assert.is(status, 1);
  assert.match(out, `${file} is damaged`);
  assert.match(err, "[BACKUP_DAMAGED]");
  const words = ["restore", "--from", backups, "--to", inFolder("restored"), "--json"];
  const restored = await harness.run(...words);
  assert.match(restored.err, file);
  const { error } = documents(restored.out).at(-1) as { error: { name: string } };
  assert.is(error.name, "BACKUP_DAMAGED");
});

test("a damaged manifest causes a warning, restore does not guess, and verify ends with status 1", async () => {
  const backups = inFolder("backups");
  for (let round = 0; round < 2; round++) await harness.ok("export", "-d", DEVICE, "--to", backups);
  const points = join(backups, "points");
  // The fake daemon's takes may be within one second, so the order of names is undefined.
  const [damaged, whole] = (await readdir(points)).map((name) => join(points, name));
  await writeFile(damaged!, "{");
  const { id } = JSON.parse(await readFile(whole!, "utf8")) as { id: string };
  const list = await harness.run("list", "--from", backups);
  assert.is(list.status, 0);
  assert.match(list.out, id.slice(0, 8));
  assert.match(list.err, `${damaged} is damaged`);
  const target = inFolder("restored");
  const byId = await harness.run("restore", "--from", backups, "--to", target, "--at", id);
  assert.is(byId.status, 0);
  assert.match(byId.err, "it is skipped");
  assert.ok((await readFile(target)).equals(content));
  const { status, out, err } = await harness.run("verify", "--from", backups);
  assert.is(status, 1);
  assert.match(out, `${damaged} is damaged`);
  assert.match(err, "[BACKUP_DAMAGED]");
  const again = await harness.run("verify", "--from", backups, "--json");
  const [{ damaged_manifests }] = documents(again.out).filter(({ event }) => event === "done") as [
    { damaged_manifests: string[] },
  ];
  assert.is(damaged_manifests.length, 1);
  assert.match((await harness.run("gc", "--from", backups)).err, "[BACKUP_DAMAGED]");
});

test("an interrupted export destroys its snapshot", async () => {
  const { driver } = harness;
  const info = driver.snapshotInfo;
  const running = harness.start("export", "-d", DEVICE, "--to", inFolder("backups"));
  let isTaken = false;
  let release: () => void = () => undefined;
  const interrupted = new Promise<void>((done) => {
    release = done;
  });
  driver.snapshotInfo = async (device) => {
    const found = await info(device);
    if (found.image !== null) {
      isTaken = true;
      await interrupted;
    }
    return found;
  };
  await eventually("its snapshot is taken", () => isTaken);
  running.child.kill("SIGINT");
  // The program has handled the signal before it gets a response that comes after it.
  const ended = running.outcome;
  await harness.run("version");
  release();
  const { status, err } = await ended;
  assert.is(status, 1);
  assert.match(err, "[ABORTED]");
  assert.is(driver.snapshots.size, 0);
});

test("qcow2 files, a full one and an overlay, each equal to the device", async () => {
  const words = ["export", "-d", DEVICE, "--to", inFolder("chain"), "--qcow2", "--auto"];
  for (const kind of ["full", "incremental"]) {
    const done = documents(await harness.ok(...words, "--json")).at(-1);
    assert.is(done?.["kind"], kind);
    const path = String(done?.["path"]);
    const compare = ["compare", "-f", "qcow2", "-F", "raw", path, inFolder("image")];
    assert.match(execFileSync("qemu-img", compare, { encoding: "utf8" }), "identical");
  }
  assert.match(await harness.ok(...words), /, into .*\.qcow2\n$/);
});

test("an interrupted stream ends, even if its reader is stalled", async () => {
  const fifo = inFolder("fifo");
  execFileSync("mkfifo", [fifo]);
  const child = spawn("bash", ["-c", `exec $CTL export -d ${DEVICE} --to - > ${fifo}`], {
    env: {
      ...process.env,
      CTL: `${process.execPath} ${program}`,
      BLKSNAP_SOCKET: harness.socketPath,
    },
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  const reader = await open(fifo);
  // There are as many only while the first data are written, for which the pipe has no room.
  for (let left = 2048; left > 0; )
    left -= (await reader.read(Buffer.alloc(left), 0, left)).bytesRead;
  child.kill("SIGINT");
  assert.equal(await ended, [null, "SIGINT"]);
  assert.is(harness.driver.snapshots.size, 0);
  await reader.close();
});

test("options that do not go together are refused", async () => {
  const words = ["export", "-d", DEVICE, "--to", inFolder("b")];
  assert.is((await harness.run(...words, "--auto", "--since", "1")).status, 2);
  assert.is((await harness.run(...words, "--record", "r")).status, 2);
  assert.is((await harness.run(...words, "--qcow2", "--raw")).status, 2);
  assert.is((await harness.run(...words, "--qcow2", "--record", "r")).status, 2);
  assert.is((await harness.run("prune", "--from", inFolder("b"))).status, 2);
  const missing = await harness.run("list", "--from", inFolder("b"));
  assert.match(missing.err, "[BACKUP_NOT_FOUND]");
});

/** A shell command, with $CTL for the program. */
function shell(line: string): Promise<Outcome> {
  const env = {
    ...process.env,
    CTL: `${process.execPath} ${program}`,
    LANG: "C.UTF-8",
    LC_ALL: "",
  };
  const options = { env: { ...env, BLKSNAP_SOCKET: harness.socketPath } };
  return new Promise((done) => {
    const child = execFile("bash", ["-o", "pipefail", "-c", line], options, (_, out, err) =>
      done({ status: child.exitCode, signal: child.signalCode, out, err }),
    );
  });
}

test("a stream goes from export to restore through a pipe, first in full, then with changes", async () => {
  const copy = inFolder("copy");
  const sent = inFolder("sent");
  const pipe = (more = ""): Promise<Outcome> =>
    shell(
      `$CTL export -d ${DEVICE} --to - --auto --record ${sent} ${more} | $CTL restore --from - --to ${copy}`,
    );
  const first = await pipe();
  assert.is(first.status, 0, first.err);
  assert.is(first.err, "");
  assert.match(first.out, /^restored: \/dev\/loop0 of .* \(full\), /);
  assert.ok((await readFile(copy)).equals(content));
  const second = await pipe("--json");
  assert.is(second.status, 0, second.err);
  assert.is(documents(second.err).at(-1)?.["kind"], "incremental");
  assert.match(second.out, "(incremental)");
  const file = inFolder("stream");
  const saved = await shell(
    `$CTL export -d ${DEVICE} --to - > ${file} && $CTL verify --from - < ${file}`,
  );
  assert.match(saved.out, "verified: a stream of /dev/loop0");
  const cut = await shell(
    `head -c 1000000 ${file} | $CTL restore --from - --to ${inFolder("cut")} --json`,
  );
  assert.is(cut.status, 1);
  assert.match(cut.err, "before its end record. Send the stream again to complete the target");
  assert.match(cut.out, "BACKUP_INCOMPLETE");
  const none = await shell(
    `$CTL export -d ${DEVICE} --to - | head -c 1000 > /dev/null; exit \${PIPESTATUS[0]}`,
  );
  assert.is(none.status, 1);
  assert.match(none.err, "the stream's reader has ended");
  const full = await shell(`$CTL export -d ${DEVICE} --to - --json > /dev/full`);
  assert.is(full.status, 1);
  assert.match(full.err, "[TARGET_FULL]");
  assert.is(harness.driver.snapshots.size, 0);
});

test.run();
