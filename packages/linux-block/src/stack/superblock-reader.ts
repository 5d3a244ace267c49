/** Reads superblocks of devices that may hang, without this process waiting: see path-target.ts. */
import { ENODEV, errnoName } from "@blksnap/errors";
import { deviceKey, keyOfNumber } from "../device-number.js";
import type { HelperCalls } from "../helper-calls.js";
import type { ReadDevice } from "./probe.js";

const ANSWER_LIMIT_MS = 5_000;

/** For TopologyProbe: it fails with ETIMEDOUT if the device does not answer. */
export function superblockReader(read: HelperCalls["read"]): ReadDevice {
  return async (node, device, startBytes, lengthBytes) => {
    const answer = await read(node, startBytes, lengthBytes, ANSWER_LIMIT_MS);
    if (typeof answer === "number") throw failed(answer, node);
    // The name of a device that is gone may belong to another one.
    if (keyOfNumber(answer.special) !== deviceKey(device)) throw failed(-ENODEV, node);
    return answer.bytes;
  };
}

function failed(errno: number, node: string): Error {
  const code = errnoName(errno);
  return Object.assign(new Error(`${code}: read ${node}`), { code, errno });
}
