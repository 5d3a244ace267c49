import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { KeptEventQueue } from "@blksnap/event-queue";
import { test } from "uvu";
import * as assert from "uvu/assert";

interface Event {
  readonly n: number;
}

let dir = "";
let path = "";
test.before.each(() => {
  dir = mkdtempSync(join(tmpdir(), "kept-"));
  path = join(dir, "events.log");
});
test.after.each(() => rmSync(dir, { recursive: true }));

function open(options: { capacity?: number; onFailure?: (error: unknown) => void } = {}) {
  return new KeptEventQueue<Event>(path, options);
}

/** Numbers and contents of all events in the queue. */
async function held(queue: KeptEventQueue<Event>): Promise<(readonly [number, number])[]> {
  const found: (readonly [number, number])[] = [];
  const { oldestSequence, nextSequence } = queue;
  if (oldestSequence === nextSequence) return found;
  for await (const { record } of queue.subscribe({ fromSequence: oldestSequence })) {
    found.push([record.sequence, record.event.n]);
    if (record.sequence + 1 === nextSequence) break;
  }
  return found;
}

test("the next process has the events, and continues their numbers", async () => {
  const first = open();
  first.push({ n: 10 });
  first.push({ n: 11 });
  // The first process is killed: nothing is closed.
  const next = open();
  assert.is(next.log, first.log);
  assert.equal(await held(next), [
    [1, 10],
    [2, 11],
  ]);
  assert.is(next.push({ n: 12 }).sequence, 3);
  assert.is(open().nextSequence, 4);
});

test("the file is a ring, too, and a reader learns how many events it has missed", async () => {
  const queue = open({ capacity: 4 });
  for (let n = 1; n <= 103; n++) queue.push({ n });
  const lines = readFileSync(path, "utf8").trimEnd().split("\n");
  assert.ok(lines.length <= 9, `${lines.length} lines`);
  const next = open({ capacity: 4 });
  assert.equal(
    (await held(next)).map(([sequence]) => sequence),
    [100, 101, 102, 103],
  );
  const follower = next.subscribe({ fromSequence: 50 });
  assert.is((await follower.next()).value?.missed, 50);
});

test("an incomplete line begins another log, because a reader may have seen its number", async () => {
  const first = open();
  first.push({ n: 1 });
  first.push({ n: 2 });
  const text = readFileSync(path, "utf8");
  writeFileSync(path, text.slice(0, -5));
  const next = open();
  assert.is.not(next.log, first.log);
  assert.equal(await held(next), [[1, 1]]);
  assert.is(open().log, next.log);
});

test("damaged lines in the middle are left out, and numbers continue", async () => {
  const first = open();
  for (let n = 1; n <= 4; n++) first.push({ n });
  const lines = readFileSync(path, "utf8").split("\n");
  lines[2] = "\0\0\0";
  writeFileSync(path, lines.join("\n"));
  const next = open();
  assert.is.not(next.log, first.log);
  assert.equal(await held(next), [
    [3, 3],
    [4, 4],
  ]);
  assert.is(next.push({ n: 5 }).sequence, 5);
});

test("a foreign or empty file is replaced", () => {
  for (const text of [
    "",
    "{}\n",
    '{"log":"../../x"}\n',
    "[]\n[]\n",
    '{"log":"01234567"}\nnull\n',
    '{"log":"01234567"}\n{"sequence":-5,"timeNs":1,"event":{}}\n',
    '{"log":"01234567"}\n{"sequence":0,"timeNs":1,"event":{}}\n',
    '{"log":"01234567"}\n{"sequence":4503599627370497,"timeNs":1,"event":{}}\n',
  ]) {
    writeFileSync(path, text);
    const queue = open();
    assert.match(queue.log, /^[0-9a-f]{8}$/);
    assert.is(queue.push({ n: 1 }).sequence, 1);
    queue.close();
  }
});

test("a file that cannot be written is reported once; events continue, in another log", async () => {
  const queue = open();
  const { log } = queue;
  queue.push({ n: 1 });
  queue.close();
  const failures: unknown[] = [];
  rmSync(path);
  mkdirSync(path);
  const next = open({ onFailure: (error) => failures.push(error) });
  assert.is.not(next.log, log);
  const other = next.log;
  next.push({ n: 1 });
  next.push({ n: 2 });
  assert.is(failures.length, 1);
  // A reader that continues: what it has read still belongs to the log of that name.
  assert.is(next.log, other);
  assert.not(existsSync(`${path}.new`));
  assert.equal(await held(next), [
    [1, 1],
    [2, 2],
  ]);
  rmSync(path, { recursive: true });
  next.push({ n: 3 });
  // Once the file can be written again, everything is in it.
  const last = open();
  assert.is((await held(last)).length, 3);
  assert.is(last.log, other);
});

test.run();
