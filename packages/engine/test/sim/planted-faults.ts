// Faults to plant into the engine: the simulation must find them.
import { CbtMap, DiffAreaMap, Geometry } from "@blksnap/engine";
import { makeMap } from "../whole-maps.js";
import { AHEAD_FAULTS } from "./planted-ahead-faults.js";
import { BEHIND_FAULTS } from "./planted-behind-faults.js";
import { CUT_FAULTS } from "./planted-cut-faults.js";
import { DISCARD_FAULTS } from "./planted-discard-faults.js";
import { KEPT_FAULTS } from "./planted-kept-faults.js";
import { LATE_FAULTS } from "./planted-late-faults.js";
import { memoryFaults } from "./planted-memory-faults.js";
import { OVERFLOW_FAULTS } from "./planted-overflow-faults.js";
import { SLOT_FAULTS } from "./planted-slot-faults.js";
import { everyNth, type Inside, type Method, type PlantedFault, replace } from "./planting.js";

const cow: PlantedFault[] = [
  {
    name: "a saved bit is dropped now and then",
    global: () => {
      const drops = everyNth(20);
      return replace(DiffAreaMap.prototype, "setSaved", (original) => {
        return function (this: Inside, ...args) {
          if (!drops()) original.apply(this, args);
        };
      });
    },
  },
  {
    name: "the saved bit is set when the copy begins",
    engine: ({ copyPath, core }) => {
      const launch: Method = copyPath.launchFront.bind(copyPath);
      copyPath.launchFront = (
        tag: number,
        chunk: number,
        start: number,
        end: number,
        s: number,
      ) => {
        core.area.map.setSaved(chunk, start, end);
        launch(tag, chunk, start, end, s);
      };
    },
  },
  {
    name: "a block that another request copies is copied again instead of waited for",
    seed: 3,
    engine: ({ copyPath }) => {
      copyPath.freeEnd = (_chunk: number, _start: number, end: number) => end;
    },
  },
  {
    name: "the write is issued beside its copy instead of after it",
    engine: ({ frontPath }) => {
      const { preserve } = frontPath;
      frontPath.preserve = (tag: number) => {
        preserve.call(frontPath, tag);
        return true;
      };
    },
  },
  {
    name: "only the first chunk of a request is saved",
    engine: ({ frontPath, core }) => {
      const { pass } = frontPath;
      frontPath.pass = (tag: number) => {
        core.front.endChunk[tag] = core.front.beginChunk[tag];
        return pass.call(frontPath, tag);
      };
    },
  },
  {
    name: "requests that wait for a copy are forgotten when it ends",
    seed: 6,
    engine: ({ core }) => {
      const forgets = everyNth(50);
      const wake = core.wakeWaiters.bind(core);
      core.wakeWaiters = (copy: number) => {
        if (forgets()) {
          core.copies.waitersHead[copy] = -1;
          core.copies.waitersTail[copy] = -1;
        }
        wake(copy);
      };
    },
  },
  {
    name: "the second half of a failed copy counts as saved",
    seed: 2,
    engine: ({ copyPath, core }) => {
      const { fail } = copyPath;
      copyPath.fail = (copy: number, result: number) => {
        fail.call(copyPath, copy, result);
        const { chunk, rangeEnd } = core.copies;
        const end = rangeEnd[copy];
        const begin = core.area.map.nextUnsaved(chunk[copy], 0, end);
        if (begin < end) core.area.map.setSaved(chunk[copy], begin, end);
      };
    },
  },
  {
    name: "a lost block is recorded as saved",
    seed: 2,
    global: () =>
      replace(DiffAreaMap.prototype, "setLost", () => {
        return function (this: Inside, chunk, from, to) {
          this.setSaved(chunk, from, to);
        };
      }),
  },
  {
    name: "the short last block counts as a whole one",
    global: () =>
      replace(Geometry.prototype, "blockEndInChunk", () => {
        return function (this: Inside, _chunk, block) {
          return (block + 1) << this.blockShift;
        };
      }),
  },
  {
    name: "the slot of a chunk is not recorded until its first copy has ended",
    global: () =>
      replace(DiffAreaMap.prototype, "setSlot", (original) => {
        const skips = everyNth(10);
        return function (this: Inside, ...args) {
          if (!skips()) original.apply(this, args);
        };
      }),
  },
];

const take: PlantedFault[] = [
  {
    name: "a write that needed copies is issued while writes are held",
    engine: ({ frontPath, core }) => {
      const advance: Method = frontPath.advance.bind(frontPath);
      frontPath.advance = (tag: number) => {
        const { holding } = core;
        core.holding = false;
        advance(tag);
        core.holding = holding;
      };
    },
  },
  {
    name: "a new write is issued while writes are held",
    engine: ({ frontPath, core }) => {
      frontPath.submitWrite = (tag: number) => {
        const { holding } = core;
        core.holding = false;
        frontPath.start(tag);
        core.holding = holding;
      };
    },
  },
  {
    name: "drained is reported with a write in flight",
    engine: ({ frontPath, core }) => {
      frontPath.reportDrained = () => {
        if (core.inflightWrites > 1 || core.drainReported) return;
        core.drainReported = true;
        core.io.onDrained();
      };
    },
  },
  {
    name: "held writes continue without being marked and copied",
    engine: ({ frontPath, core }) => {
      const start: Method = frontPath.start.bind(frontPath);
      frontPath.start = (tag: number) => {
        if (core.front.state[tag] === 2) frontPath.issue(tag);
        else start(tag);
      };
    },
  },
  {
    name: "a request that waited when the area was dropped is forgotten",
    engine: (engine) => {
      engine.wakeAll = () => {};
    },
  },
];

const cbt: PlantedFault[] = [
  {
    name: "the CBT mark comes after the write is issued",
    engine: ({ frontPath }) => {
      const { issue, mark } = frontPath;
      frontPath.mark = () => {};
      frontPath.issue = (tag: number) => {
        issue.call(frontPath, tag);
        mark.call(frontPath, tag);
      };
    },
  },
  {
    name: "an image write is marked in the live CBT map only",
    seed: 3,
    global: () =>
      replace(CbtMap.prototype, "markRequestBoth", () => {
        return function (this: Inside, ...args) {
          this.markRequest(...args);
        };
      }),
  },
  {
    name: "the first mark of a block forgets its frozen value",
    global: () =>
      replace(CbtMap.prototype, "touch", () => {
        return function (this: Inside, block, _frozen, active) {
          this.write[block] = active;
        };
      }),
  },
];

const image: PlantedFault[] = [
  {
    name: "blocks saved during a read of the original are not read again",
    engine: ({ imagePath }) => {
      imagePath.reader.reread = () => false;
    },
  },
  {
    name: "only the first run saved meanwhile is read again",
    seed: 8,
    engine: ({ imagePath, core }) => {
      const reread: Method = imagePath.reader.reread.bind(imagePath.reader);
      imagePath.reader.reread = (run: number) => core.runs.kind[run] === 0 && reread(run);
    },
  },
  {
    name: "a partly written block is not filled up first",
    engine: ({ imagePath }) => {
      imagePath.writer.prepareEdges = () => 0;
    },
  },
  {
    name: "a direct write counts as saved before it has ended",
    seed: 6,
    engine: ({ copyPath, core }) => {
      const direct: Method = copyPath.acquireDirect.bind(copyPath);
      copyPath.acquireDirect = (
        tag: number,
        chunk: number,
        start: number,
        end: number,
        s: number,
      ) => {
        core.area.map.setSaved(chunk, start, end);
        return direct(tag, chunk, start, end, s);
      };
    },
  },
  {
    name: "a failed direct write counts as saved",
    seed: 7,
    engine: ({ imagePath, core }) => {
      const done: Method = imagePath.onRunDone.bind(imagePath);
      imagePath.onRunDone = (run: number, result: number) => {
        if (core.runs.kind[run] === 2 && core.runs.copy[run] >= 0) imagePath.recordDirect(run);
        done(run, result);
      };
    },
  },
  {
    name: "a released chunk keeps the slot that it gave back",
    global: () =>
      replace(DiffAreaMap.prototype, "release", (original) => {
        return function (this: Inside, ...args) {
          const slot = original.apply(this, args) as number;
          if (slot >= 0) this.setSlot(args[0], slot);
          return slot;
        };
      }),
  },
  {
    name: "a chunk is released while a run works on it",
    seed: 6,
    engine: ({ core }) => {
      core.runs.isBusy = () => false;
    },
  },
  {
    name: "only the first chunk of a run is checked again",
    seed: 6,
    engine: ({ core, imagePath }) => {
      const { rereadFrom }: Record<string, Method> = imagePath.reader;
      imagePath.reader.rereadFrom = (run: number, chunk: number, ...rest: number[]) =>
        chunk === core.runs.chunk[run] && rereadFrom.call(imagePath.reader, run, chunk, ...rest);
    },
  },
  {
    name: "a run kept for later is not given back",
    engine: ({ imagePath, core }) => {
      const complete: Method = imagePath.complete.bind(imagePath);
      imagePath.complete = (tag: number) => {
        core.image.reservedRun[tag] = -1;
        complete(tag);
      };
    },
  },
  {
    name: "a read that outlives its snapshot succeeds",
    engine: ({ imagePath, core }) => {
      const done: Method = imagePath.onRunDone.bind(imagePath);
      const late = (act: () => void) => {
        const { phase } = core;
        core.phase = 2;
        act();
        core.phase = phase;
      };
      imagePath.onRunDone = (run: number, result: number) => {
        if (core.phase === 3 && core.runs.kind[run] === 0) late(() => done(run, result));
        else done(run, result);
      };
      const advance: Method = imagePath.advance.bind(imagePath);
      imagePath.advance = (tag: number) => {
        if (core.phase === 3) late(() => advance(tag));
        else advance(tag);
      };
    },
  },
];

export const PLANTED_FAULTS: PlantedFault[] = [
  ...cow,
  ...take,
  ...cbt,
  ...image,
  ...LATE_FAULTS,
  ...memoryFaults(makeMap().map),
  ...OVERFLOW_FAULTS,
  ...SLOT_FAULTS,
  ...DISCARD_FAULTS,
  ...KEPT_FAULTS,
  ...AHEAD_FAULTS,
  ...BEHIND_FAULTS,
  ...CUT_FAULTS,
];
