/**
 * Saves some "old data" in two stores, fast one first, until the limit is reached.
 * Usage: node examples/save.mjs [DIRECTORY]   (default: the system's temporary directory)
 */
import { writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { commandStoreSystem, DiffStorage, slotOffsetBytes, slotStore } from "@blksnap/diff-storage";
import { EventQueue } from "@blksnap/event-queue";

const MIB = 2 ** 20;
const directory = process.argv[2] ?? tmpdir();
const events = new EventQueue();

const storage = await DiffStorage.open({
  system: commandStoreSystem, // fallocate(1) and flock(1); a ring does these calls without a process
  stores: [
    { path: "memory", limitBytes: 2 * MIB },
    { path: directory, directIo: "never" },
  ],
  limitBytes: 6 * MIB,
  portionBytes: 2 * MIB,
  events,
});

const oldData = Buffer.alloc(storage.slotBytes, "old ");
const savedIn = new Map(storage.stores.map((store) => [store.kind, 0]));
for (;;) {
  // A data path would use the synchronous allocateExtent and continue after "wait".
  const extent = await storage.allocateExtentWhenReady(16);
  if (extent === "full") break;
  for (let slot = extent.firstSlot; slot < extent.firstSlot + extent.count; slot++) {
    const store = storage.stores[slotStore(slot)];
    writeSync(store.fd, oldData, 0, oldData.length, slotOffsetBytes(slot, storage.slotBytes));
    savedIn.set(store.kind, savedIn.get(store.kind) + 1);
  }
}
for (const [kind, slots] of savedIn) console.log(`${kind}: ${slots} slots`);

const { allocatedBytes, limitBytes, freeBytes } = storage.stats();
console.log(`used ${allocatedBytes / MIB} of ${limitBytes / MIB} MiB, ${freeBytes} bytes free`);

for (let next = await events.wait(0); next.kind === "event"; next = await events.wait(0)) {
  console.log(`event: ${next.record.event.type}`);
}
console.log(`closed: ${await storage.close()}`);
