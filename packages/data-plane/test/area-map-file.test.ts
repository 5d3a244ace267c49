/** Memory for the map of a diff area: allocated slice by slice, in a real file. */
import { readFileSync } from "node:fs";
import { firstMapBytes } from "@blksnap/engine";
import { ECANCELED, ENOMEM, ETIMEDOUT } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { LATE_TICKS } from "../dist/io-ticker.js";
import { Bench, GIB } from "./area-map-bench.js";

/** Entries of 16 bytes and 8 bytes of hole bits for each of 8192 chunks. */
const SLICE_BYTES = 8192 * 24;
/** A chunk of the second slice. */
const CHUNK = 8192;

test("a slice gets only the memory that it needs, and recorded content stays", () => {
  const bench = new Bench(64 * GIB);
  const { map } = bench.file;
  const before = bench.allocatedBytes;
  assert.is(before, firstMapBytes(map.geometry));
  for (let chunk = 0; chunk < map.geometry.chunkCount; chunk += 100) {
    assert.is(map.slotOf(chunk), -1);
  }
  assert.is(bench.allocatedBytes, before);
  assert.not(map.hasMemory(CHUNK));
  assert.throws(() => map.setSlot(CHUNK, 1), /no memory/);
  bench.ask(1);
  bench.awaitAnswer();
  assert.ok(map.hasMemory(CHUNK));
  assert.not(map.hasMemory(CHUNK - 1));
  assert.is(bench.allocatedBytes, before + SLICE_BYTES);
  map.setSlot(CHUNK, 5);
  map.setSaved(CHUNK, 3, 9);
  map.setLost(CHUNK, 12, 13);
  assert.is(bench.allocatedBytes, before + SLICE_BYTES);

  // A later process asks again for slices without records, which changes nothing.
  bench.ask(1);
  bench.awaitAnswer();
  assert.equal([map.slotOf(CHUNK), map.nextSaved(CHUNK, 0, 64)], [5, 3]);
  assert.is(bench.allocatedBytes, before + SLICE_BYTES);
  bench.file.close();
  bench.end();
});

test("a map that does not fit into a full reactor takes nothing from it", () => {
  const bench = new Bench(64 * GIB);
  const { reactor } = bench;
  const handler = { onCompletion: () => undefined };
  const isFull = ({ code }: { code?: string }): boolean => code === "REACTOR_FULL";
  assert.throws(() => {
    for (;;) reactor.addHandler(handler);
  }, isFull);
  const place = (): number => {
    const index = reactor.addFile(bench.fd);
    reactor.removeFile(index);
    return index;
  };
  const mappings = (): number => readFileSync("/proc/self/maps", "utf8").split("memfd:map").length;
  const before = [place(), mappings()];
  assert.throws(() => new Bench(64 * GIB, reactor), isFull);
  assert.equal([place(), mappings()], before);
  bench.file.close();
  bench.end();
});

test("a slice whose memory is late is denied, again at later requests, and granted when it comes", () => {
  const bench = new Bench(64 * GIB);
  const { file } = bench;
  const { memory } = bench.area;
  // The kernel sees the request only in the reactor's next turn.
  bench.ask(1);
  for (let ticks = 1; ticks <= LATE_TICKS; ticks++) assert.ok(file.tick());
  assert.is(bench.answers, 0);
  assert.not(file.tick());
  assert.is(bench.answers, 1);
  assert.is(memory.deniedErrno(1), 0, "a write that comes later is not concerned");
  for (let again = 2; again < 5; again++) {
    bench.ask(1);
    assert.not(file.tick());
    assert.is(bench.answers, again);
  }
  bench.ask(1);
  bench.awaitAnswer();
  assert.ok(file.map.hasMemory(CHUNK));
  assert.not(file.tick());

  // When the memory comes, no write waits for it any more.
  bench.ask(2);
  while (file.tick());
  bench.ask(3);
  bench.awaitAnswer();
  assert.equal([file.map.hasMemory(2 * CHUNK), file.map.hasMemory(3 * CHUNK)], [false, true]);
  bench.ask(2);
  bench.awaitAnswer();
  assert.ok(file.map.hasMemory(2 * CHUNK));
  file.close();
  bench.end();
});

test("a denied write that asks again at once waits for the next tick", () => {
  const bench = new Bench(64 * GIB);
  const { file, area } = bench;
  let asks = 0;
  area.listener = {
    onSlotsAnswered: () => {
      asks++;
      if (asks < 4) bench.ask(1);
    },
    onTick: () => undefined,
  };
  bench.ask(1);
  for (let ticks = 0; ticks < LATE_TICKS; ticks++) assert.ok(file.tick());
  for (const [isAwaited, count] of [
    [true, 1],
    [true, 2],
    [true, 3],
    [false, 4],
  ]) {
    assert.equal([file.tick(), asks], [isAwaited, count]);
  }
  file.close();
  assert.not(file.tick());
  bench.reactor.turn();
  bench.end();
});

test("a request for which the ring had no memory or thread is retried, and denied after its time", () => {
  const bench = new Bench(64 * GIB);
  const { file, refusals, timers } = bench;
  const denied: number[] = [];
  const deny = bench.area.denyMemory.bind(bench.area);
  bench.area.denyMemory = (slice, errno) => {
    denied.push(errno);
    deny(slice, errno);
  };
  const untilRefused = (): void => {
    while (timers.length === 0 && bench.answers === 0) bench.reactor.turn();
  };
  refusals.push(-ENOMEM, -ECANCELED, 0, -ECANCELED);
  bench.ask(1);
  for (let tries = 0; tries < 3; tries++) {
    untilRefused();
    assert.equal([bench.answers, file.map.hasMemory(CHUNK)], [0, false]);
    bench.pass();
  }
  bench.awaitAnswer();
  assert.equal([denied, refusals, file.map.hasMemory(CHUNK)], [[], [], true]);

  // It is denied in time, and a later answer causes no further request.
  bench.answers = 0;
  refusals.push(-ENOMEM);
  bench.ask(2);
  untilRefused();
  while (file.tick());
  assert.equal(denied, [ETIMEDOUT]);
  bench.pass();
  assert.equal(timers, []);
  assert.not(file.map.hasMemory(2 * CHUNK));

  bench.answers = 0;
  let waitedMs = 0;
  refusals.push(...new Array<number>(1000).fill(-ENOMEM));
  bench.ask(3);
  for (untilRefused(); bench.answers === 0; untilRefused()) {
    waitedMs += timers[0]?.delayMs ?? 0;
    bench.pass();
  }
  assert.equal(denied, [ETIMEDOUT, ENOMEM]);
  assert.is(waitedMs, 10_000);
  refusals.length = 0;

  // A closed map asks for nothing.
  bench.answers = 0;
  refusals.push(-ENOMEM);
  bench.ask(3);
  untilRefused();
  file.close();
  assert.equal(timers, []);
  bench.end();
});

test("slices that wait together share one timer, and all are asked for again", () => {
  const bench = new Bench(64 * GIB);
  const { file, refusals, timers } = bench;
  refusals.push(-ENOMEM, -ECANCELED, -ENOMEM);
  for (const slice of [1, 2, 3]) bench.ask(slice);
  while (refusals.length > 0) bench.reactor.turn();
  assert.is(timers.length, 1);
  bench.pass();
  while (bench.answers < 3) bench.reactor.turn();
  assert.equal(
    [1, 2, 3].map((slice) => file.map.hasMemory(slice * CHUNK)),
    [true, true, true],
  );
  file.close();
  bench.end();
});

test("a map that is closed meanwhile gets no answer", () => {
  const bench = new Bench(64 * GIB);
  const other = new Bench(64 * GIB, bench.reactor);
  bench.ask(0);
  bench.file.close();
  other.ask(0);
  other.awaitAnswer();
  assert.ok(other.file.map.hasMemory(0));
  other.file.close();
  other.end();
});

test("a small map has all its memory from the beginning", () => {
  const bench = new Bench(4 * GIB);
  assert.is(bench.allocatedBytes, bench.lengthBytes);
  assert.ok(bench.file.map.hasMemory(0));
  bench.file.map.setSlot(7, 1);
  bench.file.close();
  bench.end();
});

test.run();
