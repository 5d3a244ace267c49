// How the host grants slots to areas, denies them, and takes unused ones back.
import { usedSlots } from "../whole-maps.js";
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

const ENOSPC = 28;

/** True if the device waits for memory or slots. */
export function asks({ memory, slotsAsked }: SimDevice): boolean {
  return slotsAsked > 0 || memory.asked;
}

/** Answers a device's request for memory or slots, or grants slots unasked after a denial. */
export function answerSlots(device: SimDevice, mayDeny: boolean): void {
  const { area, store } = device;
  const { random } = device.world;
  device.memory.answer(mayDeny);
  if (area === null || device.dropping) {
    device.slotsAsked = 0;
    return;
  }
  const asked = device.slotsAsked > 0;
  const denied = area.slots.deniedErrno !== 0;
  if (!asked && !(denied && random.oneIn(3))) return;
  const wanted = Math.max(device.slotsAsked, 1);
  device.slotsAsked = 0;
  if (asked && mayDeny && random.oneIn(6)) {
    area.slots.deniedErrno = ENOSPC;
    device.permissions.give();
    area.denySlots(ENOSPC);
    return;
  }
  const slots = random.between(1, wanted);
  const [first, count] = store.grant(device.number, slots, random, device.late.reportedHung);
  device.overflow.begin();
  area.grantSlots(first, count);
}

/** Other devices are short of slots. */
export function giveBackSlots(device: SimDevice): void {
  const { area, dropping, number, store, world } = device;
  if (area === null || dropping) return;
  const before = area.slots.freeCount;
  const inUse = new Set(usedSlots(area.map).map(([slot]) => slot));
  let given = 0;
  area.giveBackSlots((firstSlot, count) => {
    for (let slot = firstSlot; slot < firstSlot + count; slot++) {
      require(!inUse.has(slot), () => `slot ${slot} is given back, and a chunk has it`);
      store.release(slot, number);
      given++;
    }
  });
  require(given === Math.ceil(before / 2), () => `${given} of ${before} slots are given back`);
  world.trace(() => `dev${number} gives ${given} of ${before} slots back`);
}
