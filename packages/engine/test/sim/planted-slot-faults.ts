// Faults in giving back unused slots.
import { DiffArea } from "@blksnap/engine";
import { type Inside, type PlantedFault, replace } from "./planting.js";

type Visit = (firstSlot: number, count: number) => void;

function giveBackWrongly(
  wrongly: (area: Inside, visit: Visit, right: (visit: Visit) => void) => void,
) {
  return () =>
    replace(DiffArea.prototype, "giveBackSlots", (original) => {
      return function (this: Inside, visit: unknown) {
        wrongly(this, visit as Visit, (by) => original.call(this, by as never));
      };
    });
}

export const SLOT_FAULTS: PlantedFault[] = [
  {
    name: "a slot that was given back is handed out",
    global: giveBackWrongly(({ slots }, visit, right) => {
      const columns = [slots.first, slots.count, slots.freeIn];
      const [first, count, freeIn] = columns.map((column) => column.slice());
      const { used, freeCount } = slots;
      right(visit);
      Object.assign(slots, { used, freeCount });
      slots.first.set(first);
      slots.count.set(count);
      slots.freeIn.set(freeIn);
    }),
  },
  {
    name: "slots from before those that wait are given back",
    global: giveBackWrongly((_area, visit, right) => {
      right((firstSlot, count) => visit(Math.max(0, firstSlot - 1), count));
    }),
  },
  {
    name: "an area that has given slots back does not ask for others",
    seed: 6,
    global: giveBackWrongly((area, visit, right) => {
      right(visit);
      area.slots.asked = true;
    }),
  },
];
