/**
 * A daemon in the middle of a take: freezes the mounts of the mountinfo in its first argument, prints "frozen", and
 * waits to be killed.
 */

import { FreezeGroup, parseMountinfo } from "@blksnap/linux-block";
import { systemOf } from "./freeze-support.js";

const mountinfo = process.argv[2] ?? "";
const logger = { warn: console.error, error: console.error };
const group = new FreezeGroup({ logger, holdMs: 60_000, system: systemOf(mountinfo) });
const devices = parseMountinfo(mountinfo).map(({ device }) => device);
await group.freeze(devices, 60_000);
console.log("frozen");
setInterval(() => {}, 60_000);
