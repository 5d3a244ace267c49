/**
 * Copies a file with up to 16 copies of 256 KiB in flight: node copy-file.mjs FROM TO
 *
 * Each copy is a read linked to a write, so that the data goes from file to file without passing through JavaScript.
 * A short read cancels its write: the size of the file is known in advance, so that happens only if it is truncated
 * meanwhile.
 */
import { closeSync, fstatSync, openSync } from "node:fs";
import { errnoName } from "@blksnap/errors";
import {
  high32,
  low32,
  MappedMemory,
  prepareRead,
  prepareWrite,
  Ring,
  SqeFlag,
} from "@blksnap/uring";

const DEPTH = 16;
const PART_BYTES = 256 * 1024;

const [from, to] = process.argv.slice(2);
if (to === undefined) {
  console.error("usage: node copy-file.mjs FROM TO");
  process.exit(2);
}
const source = openSync(from, "r");
const target = openSync(to, "w");
const sizeBytes = fstatSync(source).size;
const ring = new Ring({ entries: 2 * DEPTH });
const memory = MappedMemory.anonymous(DEPTH * PART_BYTES);
const lengths = new Int32Array(DEPTH);
const free = Array.from({ length: DEPTH }, (_, slot) => slot);
let offset = 0;
let pending = 0;
let failure;

function startCopy(slot) {
  const length = Math.min(PART_BYTES, sizeBytes - offset);
  const address = memory.address + slot * PART_BYTES;
  const where = [low32(address), high32(address), length, low32(offset), high32(offset)];
  lengths[slot] = length;
  ring.reserve(2);
  prepareRead(ring, source, ...where, slot, 0, SqeFlag.IO_LINK);
  prepareWrite(ring, target, ...where, 0, slot, 1, 0);
  offset += length;
  pending += 2;
}

while (pending > 0 || (offset < sizeBytes && failure === undefined)) {
  while (free.length > 0 && offset < sizeBytes && failure === undefined) startCopy(free.pop());
  ring.submitAndWait(1);
  for (; ring.ready() > 0; ring.advance()) {
    const [slot, isWrite, result] = ring.cqes32.subarray(ring.headIndex());
    pending--;
    if (result !== lengths[slot]) {
      failure ??= result < 0 ? errnoName(result) : `${result} bytes instead of ${lengths[slot]}`;
    }
    if (isWrite) free.push(slot);
  }
}
ring.close();
memory.unmap();
closeSync(source);
closeSync(target);
if (failure !== undefined) {
  console.error(`copy-file: ${from} to ${to}: ${failure}`);
  process.exit(1);
}
console.log(`${sizeBytes} bytes copied with ${ring.enterCalls} calls of the kernel`);
