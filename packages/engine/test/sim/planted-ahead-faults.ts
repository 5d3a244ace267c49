// Faults in copies that go ahead of a write that continues a sequence.
import type { Inside, PlantedFault } from "./planting.js";

/** Makes copies go ahead as far as `reach` returns, from the end of what the request needs. */
function reaching(reach: (core: Inside, chunk: number, end: number, most: number) => number) {
  return ({ copyPath, core }: Inside): void => {
    copyPath.aheadEnd = (tag: number, chunk: number, start: number, end: number) => {
      const { front, windowBlocks, geometry } = core;
      if (chunk !== front.endChunk[tag] || end !== front.endBlock[tag]) return end;
      const room = windowBlocks - front.windowUsedBlocks[tag] - (end - start);
      const most = end + Math.min(front.aheadBlocks[tag], room);
      return Math.max(end, reach(core, chunk, end, Math.min(most, geometry.blocksInChunk(chunk))));
    };
  };
}

const faults: PlantedFault[] = [
  {
    name: "a copy goes ahead over blocks that others are copying",
    seed: 45,
    engine: reaching((core, chunk, end, most) => core.area.map.nextSaved(chunk, end, most)),
  },
  {
    name: "a copy goes ahead over blocks that are saved",
    seed: 3,
    engine: reaching((core, chunk, end, most) => {
      const other = core.copies.find(chunk, end, most);
      return other < 0 ? most : core.copies.rangeStart[other];
    }),
  },
  {
    name: "a copy goes ahead beyond its window",
    seed: 125,
    engine: ({ copyPath, core }) => {
      const { aheadEnd } = copyPath;
      copyPath.aheadEnd = (...args: number[]) => {
        const { windowBlocks } = core;
        core.windowBlocks = 1024;
        const end = aheadEnd.apply(copyPath, args);
        core.windowBlocks = windowBlocks;
        return end;
      };
    },
  },
  {
    name: "the blocks that a failed copy had ahead are lost",
    seed: 3,
    engine: ({ copyPath, core }) => {
      const { takeBack } = copyPath;
      copyPath.takeBack = (copy: number) => {
        const { chunk, ownEnd, rangeEnd } = core.copies;
        core.lose(chunk[copy], ownEnd[copy], rangeEnd[copy], 5);
        takeBack.call(copyPath, copy);
      };
    },
  },
  {
    name: "a write is refused, or loses its blocks, because what was copied ahead of it failed",
    seed: 33,
    engine: ({ copyPath, core }) => {
      const { onDone } = copyPath;
      copyPath.onDone = (copy: number, result: number, fault: number) => {
        core.copies.ownEnd[copy] = core.copies.rangeEnd[copy];
        onDone.call(copyPath, copy, result, fault);
      };
    },
  },
  {
    name: "the blocks that a late copy had ahead are lost with it",
    seed: 34,
    engine: ({ copyPath, core }) => {
      const { giveUp } = copyPath;
      copyPath.giveUp = (copy: number) => {
        core.copies.ownEnd[copy] = core.copies.rangeEnd[copy];
        giveUp.call(copyPath, copy);
      };
    },
  },
  {
    name: "a failed copy is reduced to what its write needs, and the rest counts as saved",
    seed: 3,
    engine: ({ copyPath, core }) => {
      const { takeBack } = copyPath;
      copyPath.takeBack = (copy: number) => {
        const { chunk, ownEnd, rangeEnd } = core.copies;
        core.area.map.setSaved(chunk[copy], ownEnd[copy], rangeEnd[copy]);
        takeBack.call(copyPath, copy);
      };
    },
  },
];

export const AHEAD_FAULTS: PlantedFault[] = faults.map((fault) => ({
  ...fault,
  hasSequences: true,
}));
