/** Resources of the reactor after an area could not be made. */
import { closeSync } from "node:fs";
import { createMemoryFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { areaIo, GEOMETRY, openReactor } from "./area-world.js";

test("an area that cannot be made unregisters the stores that it had registered", () => {
  const { reactor, close } = openReactor();
  const store = createMemoryFile("store");
  const before = reactor.addFile(store);
  reactor.removeFile(before);
  const engine = { geometry: GEOMETRY, copies: { size: 1 }, runs: { size: 1 } };
  // The second one is not a descriptor.
  const make = () => areaIo({ reactor, engine, storeFds: [store, 1_000_000] });
  assert.throws(() => reactor.attempt(make), /cannot register/);
  assert.is(reactor.addFile(store), before);
  closeSync(store);
  close();
});

test.run();
