/** A reactor that serves I/O makes no garbage: collections on its thread are counted by V8 itself. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { UblkDevice } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { faultyTarget } from "./faulty-target.mjs";
import { fio } from "./support.mjs";

const REQUESTS = Number(process.env.UBLK_GARBAGE_REQUESTS ?? 1_000_000);
/** Until then the code is compiled and the feedback collected. */
const WARM_UP = 50_000;
const TRIES = 3;
const REPORT = "/dev/shm/garbage.json";

/** Collections on the reactor's thread during `requests` requests. */
async function collections(fault, requests) {
  const to = WARM_UP + requests;
  const target = faultyTarget(fault, { from: WARM_UP, to, report: REPORT });
  const device = await UblkDevice.start({ target });
  // Each write of fio shall be a request of its own.
  writeFileSync(`/sys/block/ublkb${device.id}/queue/nomerges`, "2");
  rmSync(REPORT, { force: true });
  const start = performance.now();
  await fio(
    device.path,
    "--ioengine=io_uring",
    "--iodepth=128",
    "--iodepth_batch_submit=32",
    "--iodepth_batch_complete_min=32",
    "--rw=write",
    "--bs=512",
    "--zero_buffers",
    "--gtod_reduce=1",
    "--fixedbufs",
    "--registerfiles",
    "--size=64m",
    `--io_size=${(to + 1000) * 512}`,
  );
  const seconds = (performance.now() - start) / 1000;
  await device.stop();
  const report = JSON.parse(readFileSync(REPORT, "utf8"));
  console.log(
    `${fault}: ${report.collections} collections in ${report.requests} requests, ${Math.round(to / seconds)} IOPS`,
  );
  assert.is(report.requests, requests);
  return report.collections;
}

test("one small object per request would be seen", async () => {
  assert.ok((await collections("allocate", 200_000)) > 0);
});

test(`${REQUESTS} requests cause no garbage collection on the reactor's thread`, async () => {
  // Code that a busy machine has not compiled yet may allocate. What does once it is compiled does so each time.
  let counted = await collections("count", REQUESTS);
  for (let tries = 1; tries < TRIES && counted > 0; tries++) {
    counted = await collections("count", REQUESTS);
  }
  assert.is(counted, 0);
});

test.run();
