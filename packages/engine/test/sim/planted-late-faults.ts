/** Faults in the handling of I/O whose store does not answer in time. */
import { DiffArea } from "@blksnap/engine";
import { type Inside, type Method, type PlantedFault, replace } from "./planting.js";

export const LATE_FAULTS: PlantedFault[] = [
  {
    name: "a copy that hangs is waited for",
    seed: 2,
    engine: ({ copyPath }) => {
      copyPath.expire = () => undefined;
    },
  },
  {
    name: "a part of an image request that hangs is waited for",
    seed: 2,
    engine: ({ imagePath }) => {
      imagePath.expire = () => undefined;
    },
  },
  {
    name: "a slot is freed while late I/O may still write to it",
    seed: 5,
    engine: ({ imagePath }) => {
      const { release } = imagePath;
      const run: Method = release.run.bind(release);
      release.run = (tag: number) => {
        const area = release.core.area;
        const { hungStores } = area;
        area.hungStores = 0;
        run(tag);
        area.hungStores = hungStores;
      };
    },
  },
  {
    name: "a store with late I/O gets more",
    seed: 2,
    global: () => replace(DiffArea.prototype, "isHung", () => () => false),
  },
  {
    name: "a chunk gets a slot of a store that hangs",
    seed: 2,
    engine: ({ core }) => {
      const slotFor: Method = core.slotFor.bind(core);
      core.slotFor = (chunk: number) => {
        const acquire = core.area.slots.acquire;
        core.area.slots.acquire = () => acquire.call(core.area.slots, 0);
        const slot = slotFor(chunk);
        delete core.area.slots.acquire;
        return slot;
      };
    },
  },
  {
    name: "a store counts as answering at the first of several late answers",
    seed: 39,
    global: () =>
      replace(DiffArea.prototype, "noteAnswered", () => {
        return function (this: Inside, slot) {
          const store = slot >>> this.storeShift;
          const hung = (this.hungStores >>> store) & 1;
          this.lateIo[store] = 0;
          this.hungStores &= ~(1 << store);
          return hung === 1 ? store : -1;
        };
      }),
  },
  {
    name: "a store that answers is never used again",
    seed: 9,
    global: () =>
      replace(DiffArea.prototype, "noteAnswered", (original) => {
        return function (this: Inside, slot) {
          const { hungStores } = this;
          original.call(this, slot);
          this.hungStores = hungStores;
          return -1;
        };
      }),
  },
  {
    name: "the answer to a late copy counts for the next one of its id",
    seed: 2,
    engine: ({ core }) => {
      const { copies } = core;
      copies.setLate = (copy: number) => copies.free(copy);
    },
  },
  {
    name: "the blocks of a late copy count as saved",
    seed: 163,
    engine: ({ copyPath, core }) => {
      copyPath.giveUp = (copy: number) => {
        const { chunk, blockStart, rangeEnd } = core.copies;
        core.area.map.setSaved(chunk[copy], blockStart[copy], rangeEnd[copy]);
      };
    },
  },
  {
    name: "the blocks of a late copy are forgotten",
    seed: 5,
    engine: ({ copyPath, frontPath, core }) => {
      const { giveUp } = copyPath;
      let given = -1;
      copyPath.giveUp = (copy: number) => {
        if (core.copies.owner[copy] < core.front.depth) given = core.copies.owner[copy];
        else giveUp.call(copyPath, copy);
      };
      const preserve: Method = frontPath.preserve.bind(frontPath);
      frontPath.preserve = (tag: number) => {
        if (tag !== given) return preserve(tag);
        given = -1;
        return true;
      };
    },
  },
  {
    name: "only the first block of a late copy is lost",
    seed: 49,
    engine: ({ copyPath, core }) => {
      const { giveUp } = copyPath;
      copyPath.giveUp = (copy: number) => {
        const { blockStart, ownEnd } = core.copies;
        ownEnd[copy] = blockStart[copy] + 1;
        giveUp.call(copyPath, copy);
      };
    },
  },
  {
    name: "the bound of a copy begins before the original was read",
    seed: 2,
    engine: ({ core }) => {
      core.isLate = (since: number) => core.ioTicks - since > core.lateTicks;
    },
  },
  {
    name: "the host does not learn that a buffer is still in use",
    seed: 2,
    engine: ({ core }) => {
      const { io } = core;
      core.io = new Proxy(io, {
        get: (target, name) => {
          if (name === "onRunLate") return () => undefined;
          const value = target[name];
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    },
  },
  {
    name: "an area waits for late I/O when it is dropped",
    seed: 8,
    engine: (engine) => {
      const close: Method = engine.close.bind(engine);
      engine.close = () => {
        const { copies, runs } = engine.core;
        if (copies.lateCount + runs.lateCount === 0) close();
      };
    },
  },
  {
    name: "late I/O of an earlier area counts for this one",
    seed: 7,
    engine: ({ copyPath, imagePath }) => {
      copyPath.orphan = () => undefined;
      imagePath.orphan = () => undefined;
    },
  },
];
