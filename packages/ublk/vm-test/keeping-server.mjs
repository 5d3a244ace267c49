/** Serves a device and never answers its first write. Stops on SIGUSR1. */
import { UblkDevice } from "@blksnap/ublk";
import { faultyTarget } from "./faulty-target.mjs";

const device = await UblkDevice.start({ target: faultyTarget("keep") });
process.on("SIGUSR1", () => device.stop());
// Stopped or not, it stays until it is killed.
setInterval(() => undefined, 1000);
console.log("ready");
