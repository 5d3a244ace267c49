/** Faults in the handling of writes that find no room for their old data. */
import { CopyFault, DiffArea } from "@blksnap/engine";
import type { Inside, Method, PlantedFault } from "./planting.js";

export const OVERFLOW_FAULTS: PlantedFault[] = [
  {
    name: "blocks are lost whatever the policy",
    global: () => {
      const overflow = Object.getOwnPropertyDescriptor(DiffArea.prototype, "overflow")!;
      Object.defineProperty(DiffArea.prototype, "overflow", { get: () => 0, configurable: true });
      return () => Object.defineProperty(DiffArea.prototype, "overflow", overflow);
    },
  },
  {
    name: "a refused write reaches the original",
    seed: 5,
    engine: ({ frontPath }) => {
      frontPath.refuse = (tag: number) => frontPath.issue(tag);
    },
  },
  {
    name: "a write whose copy failed continues from where it was",
    seed: 20,
    engine: ({ frontPath, core }) => {
      const retry: Method = frontPath.retry.bind(frontPath);
      frontPath.retry = (tag: number) => {
        const { cursorChunk, cursorBlock } = core.front;
        const cursor = [cursorChunk[tag], cursorBlock[tag]];
        const again = retry(tag);
        [cursorChunk[tag], cursorBlock[tag]] = cursor;
        return again;
      };
    },
  },
  {
    name: "a write is forgotten after its wait",
    seed: 7,
    engine: (engine) => {
      const { core } = engine;
      engine.onTick = () => {
        core.ticks++;
        core.unblock();
        engine.settle();
      };
    },
  },
  {
    name: "a blocked write gives up at the first tick",
    seed: 3,
    engine: ({ core }) => {
      const block: Method = core.block.bind(core);
      core.block = (tag: number) => {
        core.front.blockedSince[tag] = -100;
        block(tag);
      };
    },
  },
  {
    name: "a write stays blocked when its area is dropped",
    seed: 3,
    engine: (engine) => {
      const { core } = engine;
      const unblock: Method = core.unblock.bind(core);
      core.unblock = () => {
        if (core.phase !== 3) unblock();
      };
    },
  },
  {
    name: "a write is refused because the original cannot be read",
    seed: 5,
    engine: ({ copyPath }) => {
      const fail: Method = copyPath.fail.bind(copyPath);
      copyPath.fail = (copy: number, result: number) => fail(copy, result, CopyFault.WRITE);
    },
  },
  {
    name: "an error of an earlier request refuses a later one",
    seed: 5,
    engine: ({ core }) => {
      const { front } = core;
      const { rewind } = front;
      front.rewind = (tag: number, geometry: Inside) => {
        const error = front.error[tag];
        rewind.call(front, tag, geometry);
        front.error[tag] = error;
      };
    },
  },
];
