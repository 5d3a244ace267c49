/** Buffers that late I/O still uses, and the ticks that make I/O late. */
import type { Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { IoBuffers } from "../dist/io-buffers.js";
import { IoTicker } from "../dist/io-ticker.js";

function make(places = 2): { buffers: IoBuffers; idle: () => number } {
  let idle = 0;
  const buffers = new IoBuffers({
    places,
    ids: 16,
    lengthBytes: 4096,
    address: (place) => 1000 + place,
    onIdle: () => idle++,
  });
  return { buffers, idle: () => idle };
}

test("a place gets another buffer if late I/O uses its own, and others keep theirs", () => {
  const { buffers } = make();
  buffers.begin(0, 1);
  const spare = buffers.replace(1);
  buffers.begin(1, 0);
  buffers.begin(2, 1);
  assert.is(buffers.addressOf(0), 1001);
  assert.is(buffers.addressOf(1), 1000);
  assert.is(buffers.addressOf(2), spare?.address);
  assert.is(buffers.spareOf(1), spare);
  assert.is(buffers.spareOf(0), undefined);
  for (const id of [0, 1, 2]) buffers.end(id);
  buffers.close();
});

test("a buffer that nothing uses is not replaced", () => {
  const { buffers } = make();
  buffers.begin(0, 0);
  buffers.end(0);
  assert.is(buffers.replace(0), undefined);
  assert.is(buffers.spareOf(0), undefined);
  buffers.close();
});

test("a spare is reused when its late I/O has been answered, not before", () => {
  const { buffers } = make();
  buffers.begin(0, 0);
  const first = buffers.replace(0);
  buffers.begin(1, 0);
  const second = buffers.replace(0);
  assert.is.not(first?.address, second?.address);
  buffers.begin(2, 1);
  const third = buffers.replace(1);
  assert.is.not(third?.address, first?.address);
  buffers.end(1);
  buffers.begin(3, 1);
  assert.is(buffers.replace(1)?.address, first?.address);
  for (const id of [0, 2, 3]) buffers.end(id);
  buffers.close();
});

test("a spare that nothing uses at the moment stays with its place", () => {
  const { buffers } = make();
  buffers.begin(0, 0);
  const spare = buffers.replace(0);
  buffers.begin(1, 0);
  buffers.end(1);
  buffers.begin(2, 1);
  const other = buffers.replace(1);
  assert.is.not(other?.address, spare?.address);
  assert.is(buffers.spareOf(0), spare);
  for (const id of [0, 2]) buffers.end(id);
  buffers.close();
});

test("a place has a bounded number of spares", () => {
  const { buffers } = make(1);
  for (let id = 0; id < 12; id++) {
    buffers.begin(id, 0);
    buffers.replace(0);
  }
  buffers.begin(12, 0);
  assert.is(buffers.replace(0), undefined);
  for (let id = 0; id <= 12; id++) buffers.end(id);
  buffers.close();
});

test("memory is freed when the last answer has come", () => {
  const { buffers, idle } = make();
  buffers.begin(0, 0);
  const spare = buffers.replace(0);
  buffers.begin(1, 0);
  buffers.close();
  assert.is(idle(), 0);
  buffers.end(0);
  assert.is(spare?.buffer.byteLength, 4096);
  buffers.end(1);
  assert.is(idle(), 1);
  assert.is(spare?.buffer.byteLength, 0);
});

test("one timer ticks for all devices, as long as one of them waits", () => {
  const timers: { delayMs: number; callback: () => void }[] = [];
  const setTimer = (delayMs: number, callback: () => void) => timers.push({ delayMs, callback });
  const reactor = { setTimer } as unknown as Pick<Reactor, "setTimer">;
  const ticker = new IoTicker(reactor, 8000);
  let busy = 2;
  let ticks = 0;
  const device = {
    tickIo: () => {
      ticks++;
      return busy-- > 0;
    },
  };
  ticker.add(device);
  ticker.add({ tickIo: () => false });
  ticker.start();
  ticker.start();
  assert.is(timers.length, 1);
  assert.is(timers[0]?.delayMs, 1000);
  while (timers.length > 0) timers.shift()?.callback();
  assert.is(ticks, 3);
  ticker.remove(device);
  ticker.start();
  timers.shift()?.callback();
  assert.is(ticks, 3);
  assert.is(timers.length, 0);
});

test.run();
