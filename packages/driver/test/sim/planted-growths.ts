/** Faults of fronts that grow, each of which the simulation has to find. */
import { type PlantedFault, replace } from "./planted-faults.js";

const { ReactorPool } = await import("@blksnap/data-plane");
const { StateDirectory } = await import("../../dist/records/state-directory.js");

export const PLANTED_GROWTHS: readonly PlantedFault[] = [
  {
    what: "the map of a grown front does not get its file name",
    seed: 9,
    plant: () =>
      replace(StateDirectory.prototype, "replaceMap", () => {
        return function (this: unknown, ...[, made]: never[]): unknown {
          return made;
        };
      }),
  },
  {
    what: "a front grows without its reactor",
    seed: 3,
    plant: () =>
      replace(ReactorPool.prototype, "request", (original) => {
        return function (this: unknown, ...words: never[]): unknown {
          const { type } = words[1] as { type: string };
          return type === "grow" ? Promise.resolve({}) : original.apply(this, words);
        };
      }),
  },
];
