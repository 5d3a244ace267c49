/** Reading superblocks of devices that may hang, without this process waiting for it: see path-target.ts. */

import { ENODEV, errnoName } from "@blksnap/errors";
import { type DeviceNumber, deviceKey, deviceNumber } from "@blksnap/linux-block";
import { readInHelper } from "@blksnap/uring";

const ANSWER_LIMIT_MS = 5_000;

/** For TopologyProbe. @throws an error as node:fs has them: ETIMEDOUT when the device does not answer */
export async function readDeviceInHelper(
  node: string,
  device: DeviceNumber,
  startBytes: number,
  lengthBytes: number,
): Promise<Buffer> {
  const answer = await readInHelper(node, startBytes, lengthBytes, ANSWER_LIMIT_MS);
  if (typeof answer === "number") throw failed(answer, node);
  // The name of a device that has gone may be another one's.
  if (deviceKey(deviceNumber(answer.special)) !== deviceKey(device)) throw failed(-ENODEV, node);
  return answer.bytes;
}

function failed(errno: number, node: string): Error {
  const code = errnoName(errno);
  return Object.assign(new Error(`${code}: read ${node}`), { code, errno });
}
