/** Requests with descriptors that reach a reactor after their caller has given up waiting. */
import { closeSync, openSync } from "node:fs";
import { createMemoryFile, ReactorThread, tryLockFile } from "@blksnap/uring";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { acquireClaim, isAbandoned, makeClaim, NoAnswerError, withdraw } from "../dist/claim.js";
import { carryOutJournal } from "../dist/journal-requests.js";
import type { ReactorRequest, RequestMessage } from "../dist/messages.js";
import { ReactorPool } from "../dist/pool.js";

test("a request is taken or withdrawn, never both", () => {
  const taken = makeClaim();
  assert.ok(acquireClaim(taken));
  assert.not(withdraw(taken));
  assert.not(acquireClaim(taken));
  const withdrawn = makeClaim();
  assert.ok(withdraw(withdrawn));
  assert.not(acquireClaim(withdrawn));
  assert.ok(withdraw(withdrawn));
});

/** Errors that reactors have reported. */
const errors: string[] = [];

/** A reactor that receives messages only when the test lets it. */
async function withSlowReactor(
  use: (pool: ReactorPool, deliver: () => void) => Promise<void>,
): Promise<void> {
  const { post } = ReactorThread.prototype;
  const pool = new ReactorPool({
    reactors: 1,
    frontDepth: 1,
    imageDepth: 1,
    ioTimeoutMs: 10_000,
    logger: pino({ level: "silent" }),
    onNotice: (_reactor, notice) => {
      if (notice.notice === "error") errors.push(notice.message);
    },
    onLost: () => undefined,
  });
  await pool.ready();
  const kept: (() => void)[] = [];
  ReactorThread.prototype.post = function (message) {
    kept.push(() => post.call(this, message));
  };
  try {
    await use(pool, () => {
      ReactorThread.prototype.post = post;
      for (const send of kept.splice(0)) send();
    });
  } finally {
    ReactorThread.prototype.post = post;
    await pool.stop();
  }
}

function attachOf(fd: number): ReactorRequest {
  return {
    type: "attach",
    tracker: 7,
    queue: { charFd: fd, queueDepth: 1, maxIoBytes: 4096 },
    originalFd: fd,
    isBlock: false,
    geometry: { capacityBytes: 4096, logicalBlockBytes: 512, chunkShift: 18, blockShift: 12 },
    cbt: { fd, lengthBytes: 4096 },
    area: undefined,
  };
}

test("a reactor that is late does not use descriptors that may mean other files by now", () =>
  withSlowReactor(async (pool, deliver) => {
    const fd = createMemoryFile("original");
    const failure = await pool.request(0, attachOf(fd), 20).catch((error: unknown) => error);
    assert.instance(failure, NoAnswerError);
    assert.is((failure as NoAnswerError).isTaken, false);
    closeSync(fd);
    const other = createMemoryFile("other");
    assert.is(other, fd);
    const asSeenByOthers = openSync(`/proc/self/fd/${other}`, "r+");
    assert.ok(tryLockFile(other));
    deliver();
    // The answer follows everything sent before: the reactor has attached nothing.
    assert.is(await pool.request(0, { type: "counters", tracker: 7 }), null);
    closeSync(other);
    assert.ok(tryLockFile(asSeenByOthers), "the reactor holds another file");
    closeSync(asSeenByOthers);
  }));

test("an area is not woken with the stores of a snapshot that was given up", () =>
  withSlowReactor(async (pool, deliver) => {
    // Its descriptors are closed when the reactor handles it.
    const request = { type: "wakeArea", tracker: 7, area: { storeFds: [1_000_000] } };
    const asked = pool.request(0, request as unknown as ReactorRequest, 20);
    const failure = await asked.catch((error: unknown) => error);
    assert.instance(failure, NoAnswerError);
    assert.is((failure as NoAnswerError).isTaken, false);
    deliver();
    assert.is(await pool.request(0, { type: "counters", tracker: 7 }), null);
    assert.not.ok(errors.some((error) => error.includes("tracker 7")));
  }));

test("a request that was begun is waited for", () =>
  withSlowReactor(async (pool, deliver) => {
    const sent: RequestMessage[] = [];
    const keep = ReactorThread.prototype.post;
    ReactorThread.prototype.post = function (message) {
      sent.push(message as RequestMessage);
      keep.call(this, message);
    };
    const asked = pool.request(0, attachOf(1_000_000), 20).catch((error: unknown) => error);
    const claim = sent[0]?.claim;
    assert.ok(claim !== undefined && acquireClaim(claim));
    assert.not(isAbandoned(claim));
    const failure = await asked;
    assert.instance(failure, NoAnswerError);
    assert.is((failure as NoAnswerError).isTaken, true);
    assert.ok(isAbandoned(claim));
    deliver();
  }));

test("a mirror that was withdrawn while the journal was busy is not begun", () => {
  const waiting: (() => void)[] = [];
  let mirrors = 0;
  const journal = {
    io: { whenIdle: (callback: () => void) => waiting.push(callback) },
    whenCommitted: (callback: () => void) => callback(),
  };
  const gate = {
    journal,
    mirror: (_place: unknown, done: (firstSequence: number | null) => void) => {
      mirrors++;
      done(1);
    },
  };
  const request = { type: "mirrorJournal", tracker: 1, fd: 3, logOffsetBytes: 0, logBytes: 512 };
  for (const isWanted of [true, false]) {
    const claim = makeClaim();
    let answers = 0;
    carryOutJournal(
      { gate } as never,
      request as never,
      () => answers++,
      () => acquireClaim(claim),
    );
    if (!isWanted) assert.ok(withdraw(claim));
    waiting.shift()?.();
    assert.is(answers, isWanted ? 1 : 0);
    assert.is(mirrors, 1);
  }
});

test.run();
