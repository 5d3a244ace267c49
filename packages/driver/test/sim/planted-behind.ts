/** Faults in copies behind their writes, across the death of the process. */
import "./load.js";
import { type PlantedFault, replace } from "./planted-faults.js";

const { CopyRecords } = await import("@blksnap/engine");
const { CopiesBehind } = await import("../../../engine/dist/copies-behind.js");
const { FrontPath } = await import("../../../engine/dist/front-path.js");
const { ImageReader } = await import("../../../engine/dist/image-read.js");

type Method = (...words: never[]) => unknown;

const BEHIND = 2;

/** The part of the engine that these faults use. */
interface EngineInside {
  readonly core: {
    readonly activeMap: () => { setSaved(chunk: number, start: number, end: number): void };
    readonly area: { readonly map: { readonly copyRecords?: InstanceType<typeof CopyRecords> } };
    readonly front: { readonly pending: Int32Array; readonly op: Uint8Array };
    readonly copies: {
      readonly size: number;
      readonly bufferTag: Int32Array;
      readonly chunk: Int32Array;
      readonly rangeStart: Int32Array;
      readonly rangeEnd: Int32Array;
      readonly mode: Uint8Array;
      readonly owner: Int32Array;
    };
  };
}

/** Runs `act` when the original has answered a write that has a copy behind it. */
function atAnswer(act: (inside: EngineInside, copy: number) => void): () => void {
  return replace(FrontPath.prototype, "onOriginalDone", (original) => {
    return function (this: unknown, ...words: never[]): unknown {
      const inside = this as EngineInside;
      const { size, mode, owner } = inside.core.copies;
      const [tag] = words as unknown as [number];
      for (let copy = 0; copy < size; copy++) {
        if (mode[copy] === BEHIND && owner[copy] === tag) act(inside, copy);
      }
      return original.apply(this, words);
    } as Method;
  });
}

function setRecord({ core }: EngineInside, copy: number): void {
  const { bufferTag, chunk, rangeStart, rangeEnd } = core.copies;
  const words = [bufferTag[copy], chunk[copy], rangeStart[copy], rangeEnd[copy]];
  core.area.map.copyRecords?.set(...(words as [number, number, number, number]));
}

function clearRecord({ core }: EngineInside, copy: number): void {
  core.area.map.copyRecords?.clear(core.copies.bufferTag[copy] as number);
}

/** Runs `act` when a copy begins to go behind its write. */
function atBegin(act: (inside: EngineInside, copy: number) => void): () => void {
  return replace(CopiesBehind.prototype, "begin", (original) => {
    return function (this: unknown, ...words: never[]): unknown {
      const answer = original.apply(this, words);
      act(this as EngineInside, (words as unknown as [number])[0]);
      return answer;
    } as Method;
  });
}

export const PLANTED_BEHIND: readonly PlantedFault[] = [
  {
    what: "old data is recorded only after the original was written",
    seed: 10,
    plant: () => {
      const takeOut = [atBegin(clearRecord), atAnswer(setRecord)];
      return () => {
        for (const one of takeOut) one();
      };
    },
  },
  {
    what: "the record of old data is cleared when the original was written, and its slot was not",
    seed: 5,
    plant: () => atAnswer(clearRecord),
  },
  {
    what: "old data counts as saved when the write of its slot begins",
    seed: 2,
    plant: () =>
      atBegin(({ core }, copy) => {
        const { chunk, rangeStart, rangeEnd } = core.copies;
        const range = [chunk[copy], rangeStart[copy], rangeEnd[copy]] as [number, number, number];
        core.activeMap().setSaved(...range);
      }),
  },
  {
    what: "an image is read while its old data is in flight, without waiting for that",
    seed: 8,
    plant: () => replace(ImageReader.prototype, "isBehind" as never, () => (() => false) as never),
  },
  {
    what: "the next daemon does not finish the copies that were left",
    seed: 4,
    plant: () =>
      replace(CopiesBehind.prototype, "resume", () => {
        return function (this: unknown): void {
          const records = (this as EngineInside).core.area.map.copyRecords;
          for (let place = 0; place < (records?.count ?? 0); place++) records?.clear(place);
        } as never;
      }),
  },
];
