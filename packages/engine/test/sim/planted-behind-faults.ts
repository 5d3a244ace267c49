// Faults in copies that go behind their write, and in how the next process resumes them.
import type { Inside, Method, PlantedFault } from "./planting.js";

const BEHIND = 2;

/** Runs `act` when a copy begins to go behind. */
function atBegin(act: (core: Inside, copy: number) => void) {
  return ({ core }: Inside): void => {
    const begin: Method = core.behind.begin.bind(core.behind);
    core.behind.begin = (copy: number) => {
      begin(copy);
      act(core, copy);
    };
  };
}

/** Runs `act` on a copy when the original has answered. */
function atAnswer(act: (core: Inside, copy: number) => void) {
  return ({ core, frontPath }: Inside): void => {
    const { onOriginalDone } = frontPath;
    frontPath.onOriginalDone = (tag: number, result: number) => {
      const { bufferTag, mode, owner, size } = core.copies;
      for (let copy = 0; copy < size; copy++) {
        const isIts = mode[copy] === BEHIND && owner[copy] === tag && bufferTag[copy] === tag;
        if (isIts) act(core, copy);
      }
      onOriginalDone.call(frontPath, tag, result);
    };
  };
}

function recordsOf(core: Inside): Inside {
  return core.area.map.copyRecords;
}

function setRecord(core: Inside, copy: number): void {
  const { bufferTag, chunk, rangeStart, rangeEnd } = core.copies;
  recordsOf(core).set(bufferTag[copy], chunk[copy], rangeStart[copy], rangeEnd[copy]);
}

function clearRecord(core: Inside, copy: number): void {
  recordsOf(core).clear(core.copies.bufferTag[copy]);
}

const faults: PlantedFault[] = [
  {
    name: "the record is set when the original has been written",
    seed: 14,
    engine: (engine) => {
      atBegin(clearRecord)(engine);
      atAnswer(setRecord)(engine);
    },
  },
  {
    name: "the record is cleared when the original has been written, and its slot has not",
    seed: 8,
    engine: atAnswer(clearRecord),
  },
  {
    name: "the saved bits are set when the slot begins to be written",
    seed: 14,
    engine: atBegin((core, copy) => {
      const { chunk, rangeStart, rangeEnd } = core.copies;
      core.area.map.setSaved(chunk[copy], rangeStart[copy], rangeEnd[copy]);
    }),
  },
  {
    name: "a read of the image takes a clear bit for old data while a copy goes behind",
    seed: 27,
    engine: ({ imagePath }) => {
      imagePath.reader.isBehind = () => false;
    },
  },
  {
    name: "a process does not continue the copies that were left",
    seed: 4,
    engine: ({ core }) => {
      core.behind.resume = () => undefined;
    },
  },
  {
    name: "a process clears the records that were left, and saves nothing",
    seed: 12,
    engine: ({ core }) => {
      core.behind.resume = () => {
        const records = recordsOf(core);
        for (let place = 0; place < (records?.count ?? 0); place++) records.clear(place);
      };
    },
  },
  {
    name: "a tag begins a copy while its place has one that was left",
    seed: 10,
    engine: ({ core }) => {
      core.behind.leftOf = () => -1;
    },
  },
  {
    name: "a copy that goes behind and fails is read again from the original",
    seed: 26,
    engine: ({ copyPath, core }) => {
      const tryAgain: Method = copyPath.tryAgain.bind(copyPath);
      copyPath.tryAgain = (copy: number) => {
        if (core.copies.mode[copy] === BEHIND) core.behind.end(copy);
        tryAgain(copy);
      };
    },
  },
  {
    name: "a copy that goes behind and is late loses nothing",
    seed: 2,
    engine: ({ copyPath, core }) => {
      const giveUp: Method = copyPath.giveUp.bind(copyPath);
      copyPath.giveUp = (copy: number) => {
        if (core.copies.mode[copy] !== BEHIND) giveUp(copy);
      };
    },
  },
  {
    name: "a copy that goes behind and fails counts as saved",
    seed: 3,
    engine: ({ copyPath, core }) => {
      const { onDone } = copyPath;
      copyPath.onDone = (copy: number, result: number, fault: number) => {
        const isBehind = core.copies.mode[copy] === BEHIND;
        onDone.call(copyPath, copy, isBehind ? 0 : result, fault);
      };
    },
  },
  {
    name: "a write ends with the original's answer while its copy is under way",
    engine: ({ frontPath }) => {
      frontPath.onOriginalDone = (tag: number, result: number) => {
        const { op } = frontPath.core.front;
        if (op[tag] === 0 || op[tag] === 2)
          frontPath.core.io.completeFront(tag, op[tag] ? 0 : result);
        else frontPath.end(tag, result);
      };
    },
  },
  {
    name: "a write is issued while writes are held, since its copy goes behind",
    engine: ({ core, frontPath }) => {
      const { issueBefore } = frontPath;
      frontPath.issueBefore = (copy: number) => {
        const { holding } = core;
        core.holding = false;
        issueBefore.call(frontPath, copy);
        core.holding = holding;
      };
    },
  },
  {
    name: "a write is issued beside other copies that it needs",
    engine: ({ core, frontPath }) => {
      core.behind.mayHavePlace = (tag: number) => {
        const records = recordsOf(core);
        return records?.isFree(tag, 0) && core.area.copiesBehind && core.front.op[tag] === 1;
      };
      const { issueBefore } = frontPath;
      frontPath.issueBefore = (copy: number) => {
        const tag = core.copies.owner[copy];
        const pending = core.front.pending[tag];
        core.front.pending[tag] = 1;
        issueBefore.call(frontPath, copy);
        core.front.pending[tag] = pending;
      };
    },
  },
  {
    name: "copies go behind under every overflow policy",
    seed: 14,
    hasFirstWrites: false,
    engine: ({ core }) => {
      core.behind.mayHavePlace = (tag: number, copy: number) => {
        const { copies, front, geometry } = core;
        const isLast =
          copies.chunk[copy] === front.endChunk[tag] &&
          copies.rangeEnd[copy] === front.endBlock[tag];
        if (!isLast || front.pending[tag] > 0 || front.op[tag] !== 1) return false;
        return (
          recordsOf(core)?.isFree(tag, copies.blockCount[copy] << geometry.blockShift) === true
        );
      };
    },
  },
];

export const BEHIND_FAULTS: PlantedFault[] = faults.map((fault) => ({
  hasFirstWrites: true,
  ...fault,
}));
