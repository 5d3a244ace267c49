/** Exports that free what they have read, under writes: killed at any moment, and with daemons killed under them. */
import {
  closeSync,
  constants,
  createReadStream,
  mkdirSync,
  openSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as assert from "uvu/assert";
import { exportStream, restoreStream } from "../../../packages/backup/dist/index.js";
import { run, start } from "../lib/command.mjs";
import { ctl } from "../lib/ctl.mjs";
import { Daemon, SOCKET_PATH } from "../lib/daemon.mjs";
import { loopDisk } from "../lib/disks.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, scenario } from "../lib/scenario.mjs";
import { attach, MIB } from "../lib/snapshots.mjs";
import { stoppingSink } from "../lib/stopping-sink.mjs";
import { until } from "../lib/wait.mjs";

const SIZE_BYTES = 24 * MIB;
const BLOCK_BYTES = 65_536;
const ROUNDS = Number(process.env.KILLS ?? 6);
const VICTIM = fileURLToPath(new URL("../lib/export-victim.mjs", import.meta.url));
/** Between writes beside an export, which shares the processors with them. */
const WRITES_PAUSE_MS = 5;
const LIMIT_BYTES = 256 * MIB;

const test = scenario(import.meta.url, { daemon: false });

/** A tracked device full of random bytes, and a place to write to it from here. */
async function prepare(t, random) {
  const device = await loopDisk(t, SIZE_BYTES);
  const { front, detach } = await attach(t, device);
  const file = openSync(front, constants.O_RDWR | constants.O_SYNC);
  let isOpen = true;
  const close = () => {
    if (isOpen) closeSync(file);
    isOpen = false;
  };
  t.defer(close);
  const end = async () => {
    close();
    await detach();
  };
  const write = (count) => {
    for (let left = count; left > 0; left--) {
      const at = random.below(SIZE_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
      writeSync(file, random.bytes(BLOCK_BYTES), 0, BLOCK_BYTES, at);
    }
  };
  for (let at = 0; at < SIZE_BYTES; at += MIB) writeSync(file, random.bytes(MIB), 0, MIB, at);
  return { device, front, write, end };
}

/** A folder for all that exports leave, removed at the end with what is in it. */
function folderOf(t) {
  const path = join(t.folder, t.name("backup-"));
  mkdirSync(path);
  t.defer(() => rmSync(path, { recursive: true }));
  return path;
}

async function ok(...words) {
  const { status, stdout, stderr } = await ctl(...words);
  assert.is(status, 0, `${words.join(" ")}: ${stderr}${stdout}`);
  return stdout;
}

/** The snapshot that the device is in. */
async function snapshotNow(t) {
  return (await t.client.status()).snapshots[0];
}

/** Has an export run, and writes from its take on. @returns {Promise<boolean>} whether it was killed, after `dieMs` */
async function exportOver(t, { words, write, dieMs }) {
  const left = (await snapshotNow(t))?.id;
  const running = start(words);
  let isOver = false;
  const ended = running.end().finally(() => {
    isOver = true;
  });
  const isTaken = async () => {
    const { id = left, taken_at = null } = (await snapshotNow(t)) ?? {};
    return isOver || (id !== left && taken_at !== null);
  };
  const writing = until("the snapshot is taken", isTaken).then(async () => {
    for (; !isOver; await sleep(WRITES_PAUSE_MS)) write(4);
  });
  if (dieMs !== undefined)
    await Promise.race([ended, sleep(dieMs).then(() => running.kill("SIGKILL"))]);
  const { status, signal, stderr } = await ended;
  await writing;
  if (signal !== "SIGKILL") assert.is(status, 0, stderr);
  return signal === "SIGKILL";
}

const seed = process.env.SEED ?? Date.now() % 2 ** 31;

test(
  "an export that frees is killed at any moment, under writes: what is complete is the device at its take",
  async (t) => {
    note(`SEED=${seed}`);
    const random = seededRandom(seed);
    await Daemon.startFor(t);
    const { device, front, write } = await prepare(t, random);
    const folder = folderOf(t);
    const [store, copy, before] = ["store", "copy", "before"].map((name) => join(folder, name));
    const known = new Set();
    const targets = { store, raw: copy };
    const wholeMs = {};
    let killed = 0;
    const exported = async (kind, dieMs) => {
      await run(["cp", front, before]);
      const words = [process.execPath, VICTIM, SOCKET_PATH, device, kind, targets[kind], folder];
      const started = performance.now();
      const isKilled = await exportOver(t, { words, write, dieMs });
      if (isKilled) killed++;
      else wholeMs[kind] = Math.min(wholeMs[kind] ?? Infinity, performance.now() - started);
      if (kind === "raw") {
        // One that was killed may have left the copy of before as it was.
        if (!isKilled) await run(["cmp", before, copy]);
        return;
      }
      const found = JSON.parse(await ok("list", "--from", store, "--json")).points;
      const [fresh, ...more] = found.filter(({ id }) => !known.has(id));
      assert.equal(more, []);
      assert.ok(isKilled || fresh !== undefined);
      if (fresh === undefined) return;
      known.add(fresh.id);
      const restored = join(folder, "restored");
      await ok("restore", "--from", store, "--at", fresh.id, "--to", restored);
      await run(["cmp", before, restored]);
      rmSync(restored);
    };
    for (const one of ["store", "raw"]) await exported(one, undefined);
    for (let round = 0; round < ROUNDS; round++) {
      write(50);
      // Whatever the killed one before it wrote to.
      const kind = random.pick(["store", "raw"]);
      await exported(kind, random.below(Math.round(1.2 * wholeMs[kind])));
    }
    note(`${killed} of ${ROUNDS} exports were killed`);
    assert.ok(killed > 0);
    for (const one of ["store", "raw"]) await exported(one, undefined);
    await ok("verify", "--from", store);
    await ok("verify", "--from", copy);
    assert.equal(await t.client.snapshotCollect(), []);
  },
  { timeLimitMs: 1_800_000 },
);

test("a daemon dies during an export: the next one frees, too, and the copy is the device at its take", async (t) => {
  const random = seededRandom(seed);
  const first = await Daemon.startFor(t);
  const { device, front, write, end } = await prepare(t, random);
  const folder = folderOf(t);
  const [stream, copy, before] = ["stream", "copy", "before"].map((name) => join(folder, name));
  await run(["cp", front, before]);
  const freedBytes = async () => {
    const { snapshots } = await t.client.status();
    return snapshots[0]?.devices[0].image_io.discard_bytes ?? 0;
  };
  const { sink, resume } = stoppingSink(stream, SIZE_BYTES / 2);
  const own = { client: t.client, device, stores: [folder], limitBytes: LIMIT_BYTES };
  const notes = [];
  const more = {
    record: join(folder, "record"),
    sink,
    freesMinBytes: 0,
    onNote: (text) => notes.push(text),
  };
  const exporting = exportStream({ ...own, wanted: { kind: "full" }, ...more });
  exporting.catch(() => undefined);
  await until("what is sent is freed", async () => (await freedBytes()) >= SIZE_BYTES / 4);
  write(300);
  first.kill("SIGKILL");
  await first.ended();
  const next = await Daemon.startFor(t, { name: "next" });
  write(300);
  resume((SIZE_BYTES * 3) / 4);
  // Its counters start from zero.
  await until("the next one frees, too", async () => (await freedBytes()) >= SIZE_BYTES / 8);
  resume();
  await exporting;
  assert.equal(notes, []);
  await restoreStream({ input: createReadStream(stream), target: copy });
  await run(["cmp", before, copy]);
  assert.equal(await next.client.snapshotCollect(), []);
  await end();
  await next.stop();
});

test.run();
