/** What an area has taken of its reactor when it cannot be made. */
import { closeSync } from "node:fs";
import { MessageChannel } from "node:worker_threads";
import type { TrackerEngine } from "@blksnap/engine";
import { createMemoryFile, Reactor } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { AreaIo } from "../dist/area-io.js";
import { CopyDurations } from "../dist/durations.js";
import type { IoTicker } from "../dist/io-ticker.js";

const BLOCK_BYTES = 4096;
const CHUNK_BYTES = 4 * BLOCK_BYTES;

test("an area that cannot be made gives back the stores that it had registered", () => {
  const { port1, port2 } = new MessageChannel();
  const wakeFd = native.eventFd(0, 0o2000000);
  const none = () => undefined;
  const reactor = new Reactor({ wakeFd, port: port2, onMessage: none, onError: none });
  const store = createMemoryFile("store");
  const before = reactor.addFile(store);
  reactor.removeFile(before);
  const engine = {
    geometry: { chunkBytes: CHUNK_BYTES, blockShift: 12 },
    copies: { size: 1 },
    runs: { size: 1 },
  };
  const make = () =>
    new AreaIo({
      reactor,
      ticker: { start: none } as unknown as IoTicker,
      engine: engine as unknown as TrackerEngine,
      copyDurations: new CopyDurations(reactor, 1),
      originalIndex: 0,
      // The second is no descriptor at all.
      storeFds: [store, 1_000_000],
      frontDepth: 1,
      imageDepth: 1,
      frontWindowBytes: BLOCK_BYTES,
      imageWindowBytes: BLOCK_BYTES,
      slotBytes: CHUNK_BYTES,
      journal: undefined,
    });
  assert.throws(() => reactor.attempt(make), /cannot register/);
  assert.is(reactor.addFile(store), before);
  closeSync(store);
  closeSync(wakeFd);
  port1.close();
});

test.run();
