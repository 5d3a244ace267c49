/** Default settings of a tracked device and its area, for tests about something else. */
import type { AreaSetup } from "../dist/messages.js";
import type { TrackedDevice } from "../dist/tracked-device.js";

export function reactorSettings() {
  return {
    index: 0,
    imageDepth: 4,
    ioTimeoutMs: 10_000,
    ringEntries: 256,
    heartbeat: new SharedArrayBuffer(4),
  };
}

/** Prepares an area of the device, with all the memory of its map at once. */
export function prepareArea(device: TrackedDevice, setup: AreaSetup): void {
  const map = device.newMap(setup);
  while (map.populateSlice());
  device.prepareArea(setup, map);
}

/** Settings of an area with four slots of one store. */
export const SLOTS = {
  extents: [0, 4],
  lowWaterSlots: 1,
  wantedSlots: 2,
  wantedSlotsMax: 2,
  overflow: { policy: 0, tickMs: 100, ticksMax: 1 },
};
