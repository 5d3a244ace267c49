/** The TypeScript side of the ring benchmark. Usage: ring-typescript.mjs BATCH NOPS */
import { prepareNop, Ring, SetupFlag } from "@blksnap/uring";

const batch = Number(process.argv[2]);
const nops = Number(process.argv[3]);
const ring = new Ring({
  entries: 256,
  flags: SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN,
});
ring.registerRingFd();

function run(count) {
  let sum = 0;
  for (let done = 0; done < count; done += batch) {
    for (let i = 0; i < batch; i++) prepareNop(ring, i, 0, 0);
    ring.submitAndWait(batch);
    for (let left = ring.ready(); left > 0; left--) {
      const cqe = ring.headIndex();
      sum += ring.cqes32[cqe] + ring.cqes32[cqe + 2];
      ring.advance();
    }
  }
  return sum;
}

run(nops / 10);
const start = process.hrtime.bigint();
run(nops);
console.log((Number(process.hrtime.bigint() - start) / nops).toFixed(1));
ring.close();
