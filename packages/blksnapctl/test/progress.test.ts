import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { showWaiting } from "../dist/progress.js";
import { run } from "../dist/run.js";
import { progressText } from "../dist/transfer.js";
import { eventually, type Harness, startHarness, terminals } from "./harness.js";

const CLEAR_LINE = "\r\x1b[K";
const MIB = 2 ** 20;

test("a slow command shows progress on one line, which is cleared at the end", async () => {
  let out = "";
  const write = (text: string) => (out += text);
  const { end } = showWaiting("snapshot_create", { write, intervalMs: 1 });
  while (!out.includes("for 2 s")) await sleep(1);
  end();
  const lines = out.split(CLEAR_LINE);
  assert.is(lines[0], "");
  assert.is(lines[1], "blksnapctl: snapshot_create: under way for 1 s; Ctrl-C cancels");
  assert.is(lines.at(-1), "");
  const told = out;
  await sleep(5);
  assert.is(out, told);
});

test("what the daemon finishes by itself is not cancelled", async () => {
  let out = "";
  const write = (text: string) => (out += text);
  const { end } = showWaiting("detach", { write, intervalMs: 1, isFinished: true });
  while (!out.includes("for 1 s")) await sleep(1);
  end();
  const line = "blksnapctl: detach: under way for 1 s; Ctrl-C ends only the wait";
  assert.is(out.split(CLEAR_LINE)[1], line);
});

test("what else is written to the terminal begins on a line of its own", async () => {
  const harness = await startHarness();
  let terminal = "";
  const write = (text: string | Uint8Array): void => {
    terminal += text;
  };
  const { snapshotDestroy } = harness.driver;
  const { id } = await harness.driver.snapshotCreate({
    devices: ["/dev/loop0"],
    stores: ["/x"],
    limitBytes: 2 ** 30,
  });
  harness.driver.snapshotDestroy = async (one) => {
    await eventually("it shows progress", () => terminal.includes("under way"));
    return await snapshotDestroy.call(harness.driver, one);
  };
  await run(["snapshot_destroy", "-i", id], {
    environment: { BLKSNAP_SOCKET: harness.socketPath },
    columns: 80,
    isAttended: true,
    errorColumns: 80,
    writeOut: write,
    writeError: write,
    untilInterrupted: () => new AbortController().signal,
    streams: terminals,
  });
  assert.ok(terminal.endsWith(`${CLEAR_LINE}Destroyed successfully\n`), JSON.stringify(terminal));
  await harness.stop();
});

test("a fast command shows no progress", () => {
  let out = "";
  const { note, end } = showWaiting("attach", { write: (text) => (out += text) });
  note("half of it");
  end();
  assert.is(out, "");
});

test("no line is wider than the terminal", async () => {
  let out = "";
  const write = (text: string) => (out += text);
  const { note, end } = showWaiting("snapshot_create", { write, columns: 40, intervalMs: 1 });
  note("creating: 340 of 1024 MiB of /a/very/long/path allocated");
  while (!out.includes("340")) await sleep(1);
  end();
  assert.is(out.split(CLEAR_LINE)[1], "blksnapctl: creating: 340 of 1024 MiB o");
});

/** A create whose stores stay at these sizes until released; returns its progress meanwhile. */
async function slowCreate(
  harness: Harness,
  stores: readonly string[],
  { isAttended }: { isAttended: boolean },
) {
  const releases: (() => void)[] = [];
  harness.driver.fillSteps = [0, 340.7 * MIB].map((allocatedBytes) => ({
    allocatedBytes,
    done: new Promise<void>((done) => releases.push(done)),
  }));
  const said = { out: "", err: "" };
  const files = stores.flatMap((store) => ["-f", store]);
  const status = run(["snapshot_create", "-d", "/dev/loop0", ...files, "-l", "1G"], {
    environment: { BLKSNAP_SOCKET: harness.socketPath },
    columns: undefined,
    isAttended,
    errorColumns: 100,
    writeOut: (text) => {
      said.out += text;
    },
    writeError: (text) => {
      said.err += text;
    },
    untilInterrupted: () => new AbortController().signal,
    streams: terminals,
  });
  return { status, said, releases };
}

test("a create says how much of its store is allocated", async () => {
  const harness = await startHarness();
  const { status, said, releases } = await slowCreate(harness, ["/var/snap"], { isAttended: true });
  const shown = (figures: string) => () => said.err.includes(`: creating: ${figures}, `);
  await eventually("the first step", shown("0 of 1024 MiB of /var/snap allocated"));
  releases[0]!();
  await eventually("the next step", shown("340 of 1024 MiB of /var/snap allocated"));
  assert.match(said.err, /allocated, \d+ s; Ctrl-C cancels/);
  releases[1]!();
  assert.is(await status, 0);
  assert.ok(said.err.endsWith(CLEAR_LINE));
  assert.not.match(said.err, "\n");
  assert.match(said.out, /^[0-9a-f-]{36}\n$/);
  await harness.stop();
});

test("the store that is growing is named", async () => {
  const harness = await startHarness();
  const stores = ["/var/a", "/var/b"];
  const { status, said, releases } = await slowCreate(harness, stores, { isAttended: true });
  const wanted = ": creating: 0 of 1024 MiB allocated, now of /var/a, ";
  await eventually("the first step", () => said.err.includes(wanted));
  for (const go of releases) go();
  assert.is(await status, 0);
  await harness.stop();
});

test("without a terminal there is no progress", async () => {
  const harness = await startHarness();
  const { status, said, releases } = await slowCreate(harness, ["/x"], { isAttended: false });
  await sleep(1100);
  for (const go of releases) go();
  assert.equal([await status, said.err], [0, ""]);
  await harness.stop();
});

test("a transfer shows bytes, rate and remaining time", () => {
  const told = { done_bytes: 3 * MIB, total_bytes: 2 ** 30, rate_bytes_per_s: 1536 };
  const begun = progressText({ ...told, left_ms: null });
  assert.is(begun, "3.0 MiB of 1.0 GiB, 1.5 KiB/s");
  const later = progressText({ ...told, left_ms: 65_000 });
  assert.is(later, "3.0 MiB of 1.0 GiB, 1.5 KiB/s, 1 min 5 s left");
});

test.run();
