/** Faults in discards that a snapshot keeps back. */
import { KeptDiscards, RequestOp } from "@blksnap/engine";
import { type Inside, type Method, type PlantedFault, replace } from "./planting.js";

export const KEPT_FAULTS: PlantedFault[] = [
  {
    name: "a discard under a snapshot is issued at once",
    engine: ({ frontPath, keeper, core }) => {
      const { start } = frontPath;
      keeper.keeps = () => false;
      frontPath.start = (tag: number) => {
        if (core.front.op[tag] === RequestOp.DISCARD) frontPath.issue(tag);
        else start.call(frontPath, tag);
      };
    },
  },
  {
    name: "a discard under a snapshot is copied",
    engine: ({ keeper }) => {
      keeper.keeps = () => false;
    },
  },
  {
    name: "a discard of saved blocks is kept back",
    engine: ({ keeper }) => {
      keeper.isNeeded = () => true;
    },
  },
  {
    name: "a discard that is kept back counts as a change",
    seed: 8,
    engine: ({ frontPath, keeper }) => {
      const keeps: Method = keeper.keeps.bind(keeper);
      keeper.keeps = (tag: number) => {
        const kept = keeps(tag);
        if (kept) frontPath.mark(tag);
        return kept;
      };
    },
  },
  {
    name: "write-zeroes is kept back",
    engine: ({ keeper, core: { front } }) => {
      const keeps: Method = keeper.keeps.bind(keeper);
      keeper.keeps = (tag: number) => {
        const op = front.op[tag];
        if (op === RequestOp.WRITE_ZEROES) front.op[tag] = RequestOp.DISCARD;
        const kept = keeps(tag);
        front.op[tag] = op;
        return kept;
      };
    },
  },
  {
    name: "a write does not remove its block from the kept discards",
    engine: ({ core }) => {
      core.kept.forget = () => undefined;
    },
  },
  {
    name: "a discard keeps blocks of a write in flight",
    seed: 4,
    engine: ({ keeper, core }) => {
      const keeps: Method = keeper.keeps.bind(keeper);
      keeper.keeps = (tag: number) => {
        const { forget } = core.kept;
        core.kept.forget = () => undefined;
        const kept = keeps(tag);
        core.kept.forget = forget;
        return kept;
      };
    },
  },
  {
    name: "a write removes only its first block from the kept discards",
    global: () =>
      replace(KeptDiscards.prototype, "forgetGranules", (original) => {
        return function (this: Inside, first, end) {
          // True in a call of the slices' own code.
          const isSlice = this.runEnd !== undefined && this.first() === first;
          original.call(this, first, isSlice ? end : first + 1);
        };
      }),
  },
  {
    name: "blocks that a discard covers in part are kept",
    global: () =>
      replace(KeptDiscards.prototype, "keep", (original) => {
        return function (this: Inside, offset, length) {
          const size = this.granuleBytes;
          const first = Math.floor(offset / size) * size;
          const end = Math.min(Math.ceil((offset + length) / size) * size, this.capacityBytes);
          original.call(this, first, end - first);
        };
      }),
  },
  {
    name: "a short last block is never kept",
    seed: 42,
    global: () =>
      replace(KeptDiscards.prototype, "keep", (original) => {
        return function (this: Inside, offset, length) {
          const end = Math.floor((offset + length) / this.granuleBytes) * this.granuleBytes;
          if (end > offset) original.call(this, offset, end - offset);
        };
      }),
  },
  {
    name: "a write does not wait for a slice in flight",
    engine: ({ keeper, core }) => {
      const admits: Method = keeper.admits.bind(keeper);
      keeper.admits = (tag: number) => {
        const { inFlight } = core.slice;
        core.slice.inFlight = false;
        admits(tag);
        core.slice.inFlight = inFlight;
        return true;
      };
    },
  },
  {
    name: "requests that wait for a slice are not woken",
    engine: ({ keeper, core }) => {
      const ended: Method = keeper.ended.bind(keeper);
      keeper.ended = (result: number) => {
        const { head, tail } = core.sliceWaiters;
        core.sliceWaiters.head = -1;
        ended(result);
        Object.assign(core.sliceWaiters, { head, tail });
      };
    },
  },
  {
    name: "a hold does not wait for a slice",
    seed: 7,
    engine: ({ keeper, core }) => {
      const next: Method = keeper.next.bind(keeper);
      const ended: Method = keeper.ended.bind(keeper);
      keeper.next = () => {
        const { inFlight } = core.slice;
        next();
        if (!inFlight && core.slice.inFlight) core.inflightWrites--;
      };
      keeper.ended = (result: number) => {
        core.inflightWrites++;
        ended(result);
      };
    },
  },
  {
    name: "a slice begins while writes are held",
    engine: ({ keeper, core }) => {
      const next: Method = keeper.next.bind(keeper);
      keeper.next = () => {
        const { holding } = core;
        core.holding = false;
        next();
        core.holding = holding;
      };
    },
  },
  {
    name: "slices continue under a snapshot",
    engine: ({ keeper, core }) => {
      const next: Method = keeper.next.bind(keeper);
      keeper.next = () => {
        const { phase } = core;
        core.phase = 0;
        next();
        core.phase = phase;
      };
    },
  },
  {
    name: "a slice is not a change for CBT",
    engine: ({ keeper, core }) => {
      const next: Method = keeper.next.bind(keeper);
      keeper.next = () => {
        const { cbt } = core;
        core.cbt = { markRequest: () => undefined };
        next();
        core.cbt = cbt;
      };
    },
  },
  {
    name: "a slice counts as a discard although a write waits for it",
    seed: 9,
    engine: ({ core }) => {
      core.discardWatch.isAwaited = () => false;
    },
  },
  {
    name: "a slice counts as a discard although it failed",
    seed: 63,
    engine: ({ keeper }) => {
      const ended: Method = keeper.ended.bind(keeper);
      keeper.ended = () => ended(0);
    },
  },
  {
    name: "discards of blocks that were marked by hand stay kept",
    seed: 3,
    engine: ({ keeper }) => {
      keeper.noteBypass = () => undefined;
    },
  },
  {
    name: "the end of a slice does not begin the next one",
    engine: ({ keeper }) => {
      const ended: Method = keeper.ended.bind(keeper);
      const next: Method = keeper.next.bind(keeper);
      let isChained = false;
      keeper.ended = (result: number) => {
        ended(result);
        isChained = true;
      };
      keeper.next = () => {
        if (!isChained) next();
        isChained = false;
      };
    },
  },
  {
    name: "kept discards are forgotten with the area",
    engine: (engine) => {
      const attach: Method = engine.attachArea.bind(engine);
      engine.attachArea = (area: Inside) => {
        engine.forgetKept();
        attach(area);
      };
    },
  },
];
