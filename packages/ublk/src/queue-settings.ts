/** Settings of a served device's request queue in the kernel. */
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoName } from "@blksnap/errors";
import { writeInHelper } from "@blksnap/uring";

/** Below this many requests the kernel sets no limit. */
const REQUESTS_MIN = 4;
/** The kernel changes a queue when the requests in flight have ended. */
const TIMEOUT_MS = 5_000;

/**
 * Takes away the I/O scheduler, which this device does not need, and limits the kernel to one request less than the
 * server has tags. Up to Linux 6.14 commands that wait in the kernel for requests detect the death of a server; with
 * all of them inside the server that takes 30 s. The limit holds only without a scheduler. Returns the problem, or
 * undefined.
 * @param noticesDeath whether the kernel notices it without them: each of the changes takes tens of milliseconds
 */
export async function settleQueue(
  device: string,
  queueDepth: number,
  noticesDeath: boolean,
): Promise<string | undefined> {
  const isLimited = !noticesDeath && queueDepth - 1 >= REQUESTS_MIN;
  const late = sleep(TIMEOUT_MS, `not done in ${TIMEOUT_MS} ms`, { ref: false });
  return await Promise.race([settle(device, isLimited ? queueDepth - 1 : undefined), late]);
}

async function settle(device: string, requests: number | undefined): Promise<string | undefined> {
  const folder = `/sys/block/${basename(device)}/queue`;
  // Both wait in the kernel for the requests in flight.
  const ends = [await writeInHelper(`${folder}/scheduler`, "none")];
  if (requests !== undefined) {
    ends.push(await writeInHelper(`${folder}/nr_requests`, String(requests)));
  }
  const failed = ends.find((end) => end < 0);
  return failed === undefined ? undefined : errnoName(failed);
}
