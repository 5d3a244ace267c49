/** Faults in the discards that the CBT map shows. */
import { CbtMap } from "@blksnap/engine";
import { type Inside, type Method, type PlantedFault, replace } from "./planting.js";

export const DISCARD_FAULTS: PlantedFault[] = [
  {
    name: "a write leaves the block recorded as discarded",
    global: () =>
      replace(CbtMap.prototype, "markRequest", (original) => {
        return function (this: Inside, ...args) {
          const before = this.discards.slice();
          original.apply(this, args);
          this.discards.set(before);
        };
      }),
  },
  {
    name: "an image write leaves the block recorded as discarded",
    global: () =>
      replace(CbtMap.prototype, "markBoth", (original) => {
        return function (this: Inside, ...args) {
          const before = this.discards.slice();
          original.apply(this, args);
          this.discards.set(before);
        };
      }),
  },
  {
    name: "a discard is recorded when it is issued",
    engine: ({ core }) => {
      const { discardWatch: watch, front, cbt } = core;
      const issued: Method = watch.issued.bind(watch);
      watch.issued = (tag: number) => {
        issued(tag);
        if (watch.discards(tag)) cbt.recordDiscard(front.offsetBytes[tag], front.lengthBytes[tag]);
      };
    },
  },
  {
    name: "a write and a discard at the same time count as a discard",
    engine: ({ core }) => {
      core.discardWatch.overlaps = () => false;
    },
  },
  {
    name: "a write that waits while a discard ends is overlooked",
    seed: 17,
    engine: ({ core }) => {
      const { discardWatch: watch } = core;
      const ended: Method = watch.ended.bind(watch);
      const { overlaps } = watch;
      watch.ended = (tag: number, result: number) => {
        watch.overlaps = () => false;
        ended(tag, result);
        watch.overlaps = overlaps;
      };
    },
  },
  {
    name: "a block that a discard covers in part is recorded",
    seed: 2,
    global: () =>
      replace(CbtMap.prototype, "recordDiscard", (original) => {
        return function (this: Inside, offset, length) {
          const size = 2 ** this.blockShift;
          const first = Math.floor(offset / size) * size;
          const end = Math.min(Math.ceil((offset + length) / size) * size, this.capacityBytes);
          original.call(this, first, end - first);
        };
      }),
  },
  {
    name: "the first mark after a take keeps the discard instead of freezing it",
    seed: 3,
    global: () =>
      replace(CbtMap.prototype, "touch", (original) => {
        return function (this: Inside, block, ...args) {
          const live = this.discards[block] & 1;
          original.call(this, block, ...args);
          this.discards[block] |= live;
        };
      }),
  },
];
