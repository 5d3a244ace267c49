/**
 * The file target, with places in the ring's table for pages of every second tag only: others have them. What
 * becomes of the other tags' requests is what becomes of all where the kernel cannot register pages.
 */
import { assert, MappedMemory } from "@blksnap/uring";
import { target as fileTarget } from "../dist/targets/file.js";

export function halfTableTarget(options) {
  return { module: new URL(import.meta.url), options };
}

export const target = {
  ...fileTarget,
  open(options, queue, reactor) {
    const others = MappedMemory.anonymous(4096);
    for (let tag = 1; tag < queue.depth; tag += 2) {
      const place = queue.bufferIndex[tag];
      assert(queue.bufferLow[tag] === 0 && place >= 0, "the queue has zero copy");
      reactor.ring.setBuffer(place, others.address, others.lengthBytes);
    }
    return fileTarget.open(options, queue, reactor);
  },
};
