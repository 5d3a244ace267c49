/**
 * Thousands of hostile requests against the real control server. SEED=N replays a run, HOSTILE_REQUESTS=N sets their
 * number. Each run has a new seed; test:all sends ten thousand, which reveal a smaller leak.
 */
import { ERRORS, isErrorName } from "@blksnap/api";
import { Dice, eventually } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ask, type Harness, openDescriptors, startHarness } from "./control-harness.js";
import { type Hostile, hostileRequest } from "./hostile-requests.js";
import { exchange, parseAnswers, type RawAnswer } from "./raw-exchange.js";
import { plainRoutes, templates } from "./request-templates.js";

const REQUESTS = Number(process.env["HOSTILE_REQUESTS"] ?? 2000);
const WARM_UP_REQUESTS = 1500;
const AT_ONCE = 16;
const FAILURES_SHOWN = 20;
/** A leak of 400 bytes for each of ten thousand requests, or of 2000 for each of the usual number, exceeds this. */
const HEAP_GROWTH_MAX_BYTES = 4_000_000;

function checkAnswer(answer: RawAnswer, hostile: Hostile): void {
  const told = `${hostile.what}: ${answer.status} ${answer.body.slice(0, 100)}`;
  if (answer.status < 400) {
    assert.ok(hostile.mayPass, told);
    return;
  }
  if (hostile.isHead) return;
  assert.match(answer.headers, /content-type: application\/json/i, told);
  const { error, ...more } = JSON.parse(answer.body);
  assert.equal(Object.keys(more), [], told);
  assert.equal(Object.keys(error).sort(), ["errno", "errno_name", "hint", "message", "name"], told);
  assert.ok(isErrorName(error.name) && error.name !== "INTERNAL", told);
  assert.is(answer.status, ERRORS[error.name as keyof typeof ERRORS].http_status, told);
  assert.ok(error.message.length > 0 && error.message.length < 300, told);
}

async function send(socketPath: string, hostile: Hostile): Promise<void> {
  const answers = parseAnswers(await exchange(socketPath, hostile), hostile.isHead);
  if (hostile.ending === "wait") assert.ok(answers.length > 0, `${hostile.what}: no answer`);
  for (const answer of answers) checkAnswer(answer, hostile);
}

function heapBytes(): number {
  globalThis.gc?.();
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

async function sendThemAll(harness: Harness): Promise<void> {
  const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
  console.log(`SEED=${seed}`);
  const { driver, socketPath, log } = harness;
  const options = { devices: ["/dev/loop0"], stores: ["memory:"], limitBytes: 2 ** 20 };
  const { id } = await driver.snapshotCreate(options);
  const { events } = driver.snapshots.get(id)!;
  const state = async () => {
    const { trackers, snapshots } = await driver.status();
    return { trackers, snapshots };
  };
  const before = await state();
  let index = 0;
  async function round(count: number): Promise<void> {
    const end = index + count;
    const failures: string[] = [];
    const worker = async () => {
      // A request depends only on the seed and its number, whatever the responses are.
      while (index < end) {
        const hostile = hostileRequest(new Dice(seed + index++), { id });
        await send(socketPath, hostile).catch((error: Error) => {
          failures.push(`${hostile.what}: ${error.message}`);
        });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    assert.equal(failures.slice(0, FAILURES_SHOWN), []);
    await eventually("no wait is left", () => events.sleepers === 0);
    assert.equal(log.filter((line) => line.includes('"level":50')).slice(0, FAILURES_SHOWN), []);
    log.length = 0;
  }
  await round(WARM_UP_REQUESTS);
  const descriptors = await openDescriptors();
  const heap = heapBytes();
  await round(REQUESTS);
  await eventually("descriptors closed", async () => (await openDescriptors()) <= descriptors);
  const grown = heapBytes() - heap;
  assert.ok(grown < HEAP_GROWTH_MAX_BYTES, `the heap grew by ${grown} bytes`);
  assert.equal(await state(), before);
  assert.is((await ask(socketPath, "/v1/version")).status, 200);
  assert.is(({} as { polluted?: unknown }).polluted, undefined);
}

test("hostile requests get named errors, and leave the server running and clean", async () => {
  const harness = await startHarness();
  try {
    await sendThemAll(harness);
  } finally {
    await harness.stop();
  }
});

test("every operation of the API is among the hostile requests", async () => {
  const harness = await startHarness();
  const { paths } = (await ask(harness.socketPath, "/v1/openapi.json")).json;
  const known = new Set([
    ...templates.map(({ method, route }) => `${method} ${route}`),
    ...plainRoutes.map((route) => `GET ${route}`),
  ]);
  for (const [route, methods] of Object.entries(paths as Record<string, object>)) {
    for (const method of Object.keys(methods)) {
      assert.ok(known.has(`${method.toUpperCase()} ${route}`), `${method} ${route}`);
    }
  }
  await harness.stop();
});

test.run();
