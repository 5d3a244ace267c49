/** What paths lead to, asked by this machine's helper processes: see path-target.ts of @blksnap/linux-block. */
import { identityAt, type LookAt, pathLooker } from "@blksnap/linux-block";
import { statInHelper } from "@blksnap/uring";

export const pathTarget: LookAt = pathLooker(statInHelper);

/** @throws LinuxBlockError DEVICE_NOT_FOUND, DEVICE_FAILED (ETIMEDOUT) */
export function identityOf(path: string, lookAt: LookAt = pathTarget): Promise<string> {
  return identityAt(path, lookAt);
}
