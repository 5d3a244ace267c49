/** Faults in a take's handling of file systems: as by a driver that asks its port for something else. */
import { SimFreeze } from "./file-systems.js";
import { omitted, type PlantedFault, replace } from "./planted-faults.js";

const always = (() => true) as never;

export const PLANTED_FREEZES: readonly PlantedFault[] = [
  {
    what: "a take freezes no front",
    plant: () =>
      replace(SimFreeze.prototype, "freeze", (original) => {
        return function (this: unknown, ...[, timeoutMs]: never[]): unknown {
          return original.apply(this, [[] as never, timeoutMs]);
        };
      }),
  },
  {
    what: "a take thaws nothing",
    plant: omitted(SimFreeze.prototype, "thaw", always, Promise.resolve()),
  },
  {
    what: "a take thaws before its instant",
    seed: 2,
    plant: () =>
      replace(SimFreeze.prototype, "freeze", (original) => {
        return async function (this: unknown, ...words: never[]): Promise<void> {
          await original.apply(this, words);
          await (this as SimFreeze).thaw();
          // Writes that waited precede the hold only if the hold is not sent at once.
          await new Promise((resolve) => setTimeout(resolve, 1));
        };
      }),
  },
  {
    what: "a take does not check that all stayed frozen to its end",
    seed: 33,
    plant: omitted(SimFreeze.prototype, "assertHeld", always),
  },
];
