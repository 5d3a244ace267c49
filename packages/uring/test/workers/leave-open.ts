/** Makes one of everything, leaves it open with operations in flight, and ends as it is told. */
import { parentPort, workerData } from "node:worker_threads";
import {
  high32,
  low32,
  MappedMemory,
  PromiseRing,
  prepareTimeout,
  Ring,
  SetupFlag,
} from "@blksnap/uring";

const page = MappedMemory.anonymous(1 << 20);
new BigInt64Array(page.buffer).set([1000n, 0n]);
const flags = SetupFlag.SINGLE_ISSUER | SetupFlag.DEFER_TASKRUN;
const ring = new Ring({ entries: 8, flags });
ring.registerRingFd();
ring.registerBuffers(1);
ring.setBuffer(0, page.address, page.lengthBytes);
prepareTimeout(ring, low32(page.address), high32(page.address), 1, 0);
ring.submit();
const promises = new PromiseRing();
void promises.submit(
  (target, low, high) =>
    prepareTimeout(target, low32(page.address), high32(page.address), low, high),
  page,
);
parentPort?.postMessage("open");
if (workerData === "exit") process.exit(0);
if (workerData === "throw") throw new Error("on purpose");
