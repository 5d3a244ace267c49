/**
 * The frame of every scenario: a daemon for the file, a folder and a stack of clean-ups for each test, and a check
 * after each test that nothing is left.
 */
import { appendFileSync, mkdirSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { suite } from "uvu";
import { Daemon, MADE_ON_FIRST_USE, SharedDaemon } from "./daemon.mjs";
import { KernelLog } from "./kernel-log.mjs";
import { assertNothingLeft, holdings } from "./leftovers.mjs";
import { partOf } from "./sample.mjs";

/** Generous: it ends what hangs, and says nothing about speed. */
const TEST_LIMIT_MS = 600_000;
/** Longer, because it may wait for disks, and for daemons that end. */
const CLEAN_UP_LIMIT_MS = 1_800_000;
const WORK_FOLDER = "/tmp/blksnap-e2e";
/** The suite prints the failure. */
const REPORT_MS = 5_000;

/** What a test works with. Everything made through it is undone after the test, last first. */
export class TestContext {
  #undo = [];
  #reliefs = [];
  #names = 0;
  /** Own folder of the test, on tmpfs. */
  folder = WORK_FOLDER;
  daemon;
  /** Patterns of kernel messages that this test provokes. */
  expectedKernelMessages = [];

  constructor(daemon) {
    this.daemon = daemon;
  }

  get client() {
    return this.daemon.client;
  }

  /** Whether the test itself has failed, and is being cleaned up after. */
  hasFailed = false;

  /** A name for a new object, unique within the test. */
  name(prefix) {
    return `${prefix}${++this.#names}`;
  }

  /** Runs a function after the test, whether it failed or not. */
  defer(step) {
    this.#undo.push(step);
  }

  /** Runs a function first after a failure: for what blocks other clean-ups, such as a disk that hangs. */
  onFailure(step) {
    this.#reliefs.push(step);
  }

  expectKernelMessages(...patterns) {
    this.expectedKernelMessages.push(...patterns.flat());
  }

  /** A step that fails is done again by the next call. @returns {Promise<unknown[]>} what went wrong */
  async undo() {
    const errors = [];
    const failed = [];
    const reliefs = this.hasFailed ? this.#reliefs.splice(0) : [];
    for (const step of [...reliefs, ...this.#undo.splice(0).reverse()]) {
      try {
        await step();
      } catch (error) {
        errors.push(error);
        failed.unshift(step);
      }
    }
    this.#undo.push(...failed);
    return errors;
  }
}

/** The runner's record of each test; a test without an end has hung. */
function record(entry) {
  if (process.env.E2E_RESULTS) {
    appendFileSync(process.env.E2E_RESULTS, `${JSON.stringify(entry)}\n`);
  }
}

/** Adds a line to the report, if the result of a test says too little. */
export function note(text) {
  record({ status: "note", text });
  console.log(text);
}

/** Like a note, but only in a run that shows progress. */
export function progress(text) {
  record({ status: "progress", text });
  console.log(text);
}

/** What a test throws that cannot run on this machine. */
class Skipped extends Error {}

/** Ends a test that needs what this kernel does not have; the report counts it as skipped. */
export function skip(why) {
  throw new Skipped(why);
}

/** A test that hangs ends its file: nothing can be cleaned up behind what still runs. */
function within(timeLimitMs, what, work) {
  const timer = setTimeout(() => {
    console.error(`${what}: not done within ${timeLimitMs} ms`);
    process.exit(1);
  }, timeLimitMs);
  return work.finally(() => clearTimeout(timer));
}

/** After a failure, the next test must still get a clean machine. */
async function endAll(state, t) {
  const isOwn = t.daemon !== undefined && t.daemon !== state.daemon;
  await (isOwn ? t.daemon.leave(t) : state.daemon?.endDevices())?.catch(() => undefined);
  await t.undo();
}

/** @returns {Promise<string | undefined>} why it was skipped */
async function runTest(state, name, body, { timeLimitMs = TEST_LIMIT_MS }) {
  mkdirSync(WORK_FOLDER, { recursive: true });
  const t = new TestContext(state.daemon);
  const kernelLog = new KernelLog();
  const errors = [];
  let skipped;
  try {
    await within(timeLimitMs, name, body(t));
  } catch (error) {
    if (error instanceof Skipped) skipped = error.message;
    else {
      errors.push(error);
      t.hasFailed = true;
      // Printed now: it is the cause, and the suite prints it only if the file comes to its end.
      console.error(`${name}: ${error?.stack ?? error}`);
    }
  }
  errors.push(...(await within(CLEAN_UP_LIMIT_MS, `clean-up of ${name}`, t.undo())));
  const endMore = () => within(CLEAN_UP_LIMIT_MS, `second clean-up of ${name}`, endAll(state, t));
  if (t.hasFailed) await endMore();
  const daemon = state.daemon && { pid: state.daemon.pid, held: state.held };
  const knownPids = [process.pid, state.daemon?.pid ?? 0];
  try {
    if (state.daemon && !state.daemon.alive) throw new Error("the daemon has ended");
    await assertNothingLeft({ folder: WORK_FOLDER, knownPids, daemon });
    await kernelLog.assertCalm(t.expectedKernelMessages);
  } catch (error) {
    errors.push(error);
  }
  if (errors.length === 0) return skipped;
  if (!t.hasFailed) {
    t.hasFailed = true;
    await endMore();
  }
  for (const error of errors.slice(1)) console.error(`then: ${error?.stack ?? error}`);
  throw errors[0];
}

/** Of a file that `npm test` has in part, the tests that are of this run: groups.mjs says which. */
function quickOrOthers(all) {
  const { E2E_PART } = process.env;
  if (E2E_PART === undefined || all.every(({ isQuick }) => !isQuick)) return all;
  return all.filter(({ isQuick }) => isQuick === (E2E_PART === "quick"));
}

/**
 * A suite of tests with one daemon. Where a file is in a quick group of the plan and in another, tests of `test.quick` are
 * those of `npm test`, and the others are the rest.
 *
 * @param {string} url the file's own import.meta.url
 * @param {{daemon?: false | {args: string[]}, sampledIn?: number}} [options] daemon: false: the tests start
 * their own. Both kinds belong into a group of the plan that has no shared daemon. sampledIn: where a run is a
 * sample, it has one in so many of the tests, as COVERAGE.md says what else proves them.
 */
export function scenario(url, options = {}) {
  const file = basename(url, ".mjs");
  const tests = suite(file);
  const all = [];
  const state = {};
  tests.before(async () => {
    if (options.daemon === false) return;
    const sharedPid = process.env.E2E_DAEMON_PID;
    state.daemon = sharedPid
      ? new SharedDaemon(Number(sharedPid))
      : await Daemon.start({ args: options.daemon?.args });
    state.held = [...holdings(state.daemon.pid), ...MADE_ON_FIRST_USE];
  });
  tests.after(async () => {
    rmSync(WORK_FOLDER, { recursive: true, force: true });
    await state.daemon?.stop();
    // A daemon of a failed test's own would keep this process from ending.
    if (state.failed) setTimeout(() => process.exit(1), REPORT_MS).unref();
  });
  function test(name, body, testOptions = {}) {
    all.push({ name, body, testOptions, isQuick: false });
  }
  test.quick = (name, body, testOptions = {}) =>
    all.push({ name, body, testOptions, isQuick: true });
  function add({ name, body, testOptions }) {
    tests(name, async () => {
      const started = performance.now();
      const entry = { file, test: name };
      record({ ...entry, status: "started" });
      const finish = (status, why) =>
        record({ ...entry, status, why, ms: Math.round(performance.now() - started) });
      try {
        const why = await runTest(state, name, body, testOptions);
        finish(why === undefined ? "passed" : "skipped", why);
      } catch (error) {
        finish("failed");
        state.failed = true;
        throw error;
      }
    });
  }
  test.run = () => {
    const { SAMPLE } = process.env;
    const part = quickOrOthers(all);
    const chosen = partOf(file, part, options.sampledIn ?? 1, SAMPLE);
    if (chosen.length < part.length)
      note(`${file}: ${chosen.length} of ${part.length} tests, by SAMPLE=${SAMPLE}`);
    for (const one of chosen) add(one);
    tests.run();
  };
  return test;
}
