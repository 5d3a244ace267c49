/** Faults in the handling of failing media and full stores, each of which has to be found. */
import type { OverflowSetup, ReactorRequest } from "@blksnap/data-plane";
import { EIO, ENOSPC } from "./losses.js";
import { omitted, type PlantedFault, replace } from "./planted-faults.js";

const { DiffAreaMap, TrackerEngine } = await import("@blksnap/engine");
const { CopyPath } = await import("../../../engine/dist/copy-path.js");
const { Snapshot } = await import("../../dist/snapshot/snapshot.js");
const { ReactorPool } = await import("@blksnap/data-plane");
const { OverflowPolicy } = await import("@blksnap/engine");

/** The part of the engine that these faults use. */
interface EngineInside {
  readonly core: { readonly front: { readonly lengthBytes: Float64Array } };
}
interface MapInside {
  readonly entriesAt: number;
  readonly entryWords: number;
  readonly words: Int32Array;
}

const FLAG_RELEASED = 2;

/** Gives a reactor another policy for a take's area than the snapshot has. */
function otherPolicy(change: (overflow: OverflowSetup) => Partial<OverflowSetup>) {
  return () =>
    replace(ReactorPool.prototype, "request", (original) => {
      return function (this: unknown, ...[reactor, asked, ...more]: never[]): unknown {
        const request = asked as ReactorRequest;
        if (request.type !== "prepareArea") return original.apply(this, [reactor, asked, ...more]);
        const { overflow } = request.area;
        const area = { ...request.area, overflow: { ...overflow, ...change(overflow) } };
        return original.apply(this, [reactor, { ...request, area } as never, ...more]);
      };
    });
}

export const PLANTED_FAILURES: readonly PlantedFault[] = [
  {
    what: "a front hides an error of its original",
    plant: () =>
      replace(TrackerEngine.prototype, "onOriginalDone", (original) => {
        return function (this: unknown, ...[tag, result]: never[]): unknown {
          const { front } = (this as EngineInside).core;
          const told = result < 0 ? front.lengthBytes[tag] : result;
          return original.apply(this, [tag, told as never]);
        };
      }),
  },
  {
    what: "a copy that failed counts as one that did not",
    seed: 15,
    plant: () =>
      replace(CopyPath.prototype, "onDone", (original) => {
        return function (this: unknown, ...[copy, result, fault]: never[]): unknown {
          return original.apply(this, [copy, Math.max(0, result) as never, fault]);
        };
      }),
  },
  {
    what: "lost blocks of an image read as zeroes",
    seed: 8,
    plant: () =>
      replace(DiffAreaMap.prototype, "setLost", (original) => {
        return function (this: unknown, ...[chunk, ...range]: never[]): unknown {
          const { entriesAt, entryWords, words } = this as MapInside;
          original.apply(this, [chunk, ...range]);
          words[entriesAt + chunk * entryWords + 1] |= FLAG_RELEASED;
          return undefined;
        };
      }),
  },
  {
    what: "an image loses blocks where the write was to fail",
    seed: 20,
    plant: otherPolicy(() => ({ policy: OverflowPolicy.BREAK_SNAPSHOT })),
  },
  {
    what: "a write fails where the image was to lose blocks",
    seed: 7,
    plant: otherPolicy(() => ({ policy: OverflowPolicy.FAIL_WRITES })),
  },
  {
    what: "a blocked write waits without end",
    seed: 123,
    plant: otherPolicy(() => ({ ticksMax: 2 ** 30 })),
  },
  {
    what: "lost blocks of an image are not reported",
    seed: 5,
    plant: omitted(Snapshot.prototype, "fault", (() => true) as never),
  },
  {
    what: "a full store is reported as a failing one",
    seed: 12,
    plant: () =>
      replace(Snapshot.prototype, "fault", (original) => {
        return function (this: unknown, ...[tracker, area, errno]: never[]): unknown {
          const told = (errno as number) === ENOSPC ? EIO : errno;
          return original.apply(this, [tracker, area, told as never]);
        };
      }),
  },
];
