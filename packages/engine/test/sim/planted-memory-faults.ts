/** Faults in the handling of maps that have no memory yet, or are denied it. */
import type { DiffAreaMap } from "@blksnap/engine";
import { type Inside, type Method, type PlantedFault, replace } from "./planting.js";

/** The class of a map's slices, which the engine does not export. */
function slicesOf(map: DiffAreaMap): Inside {
  return Object.getPrototypeOf(map.slices);
}

export function memoryFaults(anyMap: DiffAreaMap): PlantedFault[] {
  const slices = slicesOf(anyMap);
  return [
    {
      name: "entries without memory are read",
      seed: 3,
      global: () => replace(slices, "isBlank", () => () => false),
    },
    {
      name: "an entry without memory is written",
      seed: 3,
      global: () => replace(slices, "hasMemory", () => () => true),
    },
    {
      name: "a lost slice counts as not saved",
      seed: 51,
      global: () => replace(slices, "isLostAt", () => () => false),
    },
    {
      name: "requests that wait for memory are not woken by a denial",
      seed: 13,
      engine: (engine) => {
        const answered: Method = engine.onSlotsAnswered.bind(engine);
        engine.onSlotsAnswered = (granted: number) => granted && answered(granted);
      },
    },
    {
      name: "blocks of a lost slice are not counted",
      seed: 126,
      global: () =>
        replace(
          slices,
          "endChunk",
          (end) =>
            function (this: Inside, slice) {
              return (end.call(this, slice) as number) - 1;
            },
        ),
    },
  ];
}
