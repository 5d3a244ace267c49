/** Serves a device and answers none of its requests. Argument: the UblkFeature bits to ask for. */
import { UblkControl, UblkDevice } from "@blksnap/ublk";
import { faultyTarget } from "./faulty-target.mjs";

const features = Number(process.argv[2]);
const { addDevice } = UblkControl.prototype;
UblkControl.prototype.addDevice = function (device) {
  return addDevice.call(this, { ...device, features });
};
await UblkDevice.start({ target: faultyTarget("mute") });
