/** Faults in what follows when a store is truncated. */
import { DiffAreaMap } from "@blksnap/engine";
import { type Inside, type PlantedFault, replace } from "./planting.js";

const FLAG_RELEASED = 2;

const faults: PlantedFault[] = [
  {
    name: "a copy that was written before the cut counts as saved",
    engine: ({ copies }) => {
      copies.setStale = () => undefined;
    },
  },
  {
    name: "a part of an image request that was read or written before the cut succeeds",
    seed: 4,
    engine: ({ runs }) => {
      runs.setStale = () => undefined;
    },
  },
  {
    name: "chunks that the search has not reached count as they were",
    engine: ({ core }) => {
      core.checkLosses = () => undefined;
    },
  },
  {
    name: "what is lost in a discarded chunk shows zero",
    seed: 6,
    global: () =>
      replace(
        DiffAreaMap.prototype,
        "setLost",
        (setLost) =>
          function (this: Inside, chunk, from, to) {
            const wasReleased = this.isReleased(chunk);
            const lost = setLost.call(this, chunk, from, to);
            const flagsAt = this.entriesAt + chunk * this.entryWords + 1;
            if (wasReleased) this.words[flagsAt] |= FLAG_RELEASED;
            return lost;
          },
      ),
  },
];

export const CUT_FAULTS: PlantedFault[] = faults.map((fault) => ({ ...fault, hasCuts: true }));
