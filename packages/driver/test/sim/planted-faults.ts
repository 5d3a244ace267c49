/** Faults in orchestration and recovery, each of which the simulation has to find. */
import type { ReactorRequest } from "@blksnap/data-plane";
import "./load.js";

const { ReactorPool } = await import("@blksnap/data-plane");
const { Queue, UblkControl } = await import("@blksnap/ublk");
const { StateDirectory } = await import("../../dist/records/state-directory.js");
const { SnapshotPersistence } = await import("../../dist/snapshot/snapshot-journals.js");
const { Snapshot } = await import("../../dist/snapshot/snapshot.js");
const { PersistentDirectory } = await import("../../dist/records/persistent-directory.js");
const { TrackerPersistence } = await import("../../dist/records/tracker-persistence.js");
const { Tracker } = await import("../../dist/tracker/tracker.js");
const { CopyPath } = await import("../../../engine/dist/copy-path.js");
const { KeptDiscards } = await import("../../../engine/dist/kept-discards.js");
const { DiscardKeeper } = await import("../../../engine/dist/discard-keeper.js");
const { ImageRelease } = await import("../../../engine/dist/image-release.js");
const { RequestOp } = await import("@blksnap/engine");

const CHUNK_SHIFT = 15;
const CHUNK_BLOCKS = 8;

type Method = (...words: never[]) => unknown;

/** A fault, and how to plant it. @returns function that removes it */
export interface PlantedFault {
  readonly what: string;
  readonly plant: () => () => void;
  /** A seed that finds it: tried first. */
  readonly seed?: number;
  /** One death in how many steps; absent: differs from seed to seed. */
  readonly deathOneIn?: number;
}

/** Replaces a method. */
export function replace<Target extends object>(
  target: Target,
  name: keyof Target & string,
  by: (original: Method) => Method,
): () => void {
  const original = target[name] as Method;
  const made = by(original);
  Object.defineProperty(target, name, { value: made, configurable: true, writable: true });
  return () => {
    Object.defineProperty(target, name, { value: original, configurable: true, writable: true });
  };
}

/** Some requests are answered without reaching a reactor. */
function unheard(type: ReactorRequest["type"], answer: unknown, isMeant: (nth: number) => boolean) {
  return () => {
    let count = 0;
    return replace(ReactorPool.prototype, "request", (original) => {
      return function (this: unknown, ...words: never[]): unknown {
        const { type: asked } = words[1] as ReactorRequest;
        if (asked === type && isMeant(count++)) return Promise.resolve(answer);
        return original.apply(this, words);
      };
    });
  };
}

/** Of the devices in requests of a take, every second one is left out. */
function leftOut(type: "hold" | "switch", list: "trackers" | "areas") {
  return () => {
    let count = 0;
    return replace(ReactorPool.prototype, "request", (original) => {
      return function (this: unknown, ...words: never[]): unknown {
        const [reactor, request, ...more] = words as unknown as [number, ReactorRequest, number];
        if (request.type !== type) return original.apply(this, words);
        const all = (request as unknown as Record<string, readonly unknown[]>)[list] as unknown[];
        const kept = { ...request, [list]: all.filter(() => count++ % 2 === 0) };
        return original.apply(this, [reactor, kept, ...more] as never);
      };
    });
  };
}

/** A call that does nothing if the condition holds. */
export function omitted<Target extends object>(
  target: Target,
  name: keyof Target & string,
  isMeant: (...words: never[]) => boolean,
  answer?: unknown,
) {
  return () =>
    replace(target, name, (original) => {
      return function (this: unknown, ...words: never[]): unknown {
        return isMeant(...words) ? answer : original.apply(this, words);
      };
    });
}

const isOf =
  (prefix: string) =>
  (name: string): boolean =>
    name.startsWith(prefix);
const always = (): boolean => true;

/** The part of the engine that these faults use. */
interface EngineInside {
  readonly core: {
    readonly front: { readonly op: Uint8Array };
    readonly image: {
      readonly beginInChunkBytes: Int32Array;
      readonly endInChunkBytes: Int32Array;
      readonly endChunk: Int32Array;
    };
    readonly geometry: { bytesInChunk(chunk: number): number };
  };
}

/** Faults in the handling of users' discards and zeroing. */
const DISCARD_FAULTS: readonly PlantedFault[] = [
  {
    what: "a kept discard is issued over a later write",
    seed: 2,
    plant: omitted(KeptDiscards.prototype, "forget", always as never),
  },
  {
    what: "zeroing is kept back as discards are",
    plant: () =>
      replace(DiscardKeeper.prototype, "keeps", (original) => {
        return function (this: unknown, ...[tag]: never[]): unknown {
          const { op } = (this as EngineInside).core.front;
          const asked = op[tag];
          if (asked === RequestOp.WRITE_ZEROES) op[tag] = RequestOp.DISCARD;
          const is = original.apply(this, [tag]);
          op[tag] = asked;
          return is;
        };
      }),
  },
  {
    what: "a discard of an image frees chunks that it covers in part",
    seed: 2,
    plant: () =>
      replace(ImageRelease.prototype, "run", (original) => {
        return function (this: unknown, ...[tag]: never[]): unknown {
          const { image, geometry } = (this as EngineInside).core;
          image.beginInChunkBytes[tag] = 0;
          image.endInChunkBytes[tag] = geometry.bytesInChunk(image.endChunk[tag]);
          return original.apply(this, [tag]);
        };
      }),
  },
];

/** How many blocks a copy goes ahead if it checks nothing. */
const AHEAD_BLOCKS = 4;

/** Found only with sequential writes. */
export const AHEAD_FAULT: PlantedFault = {
  what: "a copy goes ahead over blocks that are saved",
  seed: 4,
  plant: () =>
    replace(CopyPath.prototype, "aheadEnd" as never, (original) => {
      return function (this: unknown, ...words: never[]): unknown {
        const [, , start, end] = words as unknown as [number, number, number, number];
        const right = original.apply(this, words) as number;
        if (end - start > 1) return right;
        return Math.min(Math.max(right, end + AHEAD_BLOCKS), CHUNK_BLOCKS);
      };
    }),
};

export const PLANTED_FAULTS: readonly PlantedFault[] = [
  ...DISCARD_FAULTS,
  {
    what: "a front is not on record",
    plant: omitted(StateDirectory.prototype, "writeRecord", isOf("tracker-") as never),
  },
  {
    what: "the record of a front stays after its detach",
    seed: 5,
    plant: omitted(StateDirectory.prototype, "removeRecord", isOf("tracker-") as never),
  },
  {
    what: "a take is not recorded",
    plant: () =>
      replace(Snapshot.prototype, "save", (original) => {
        return function (this: InstanceType<typeof Snapshot>): unknown {
          return this.state === "taken" ? undefined : original.apply(this, []);
        } as Method;
      }),
  },
  {
    what: "ranges that are marked reach no map",
    seed: 49,
    plant: omitted(Tracker.prototype, "markDirty", always as never, Promise.resolve()),
  },
  {
    what: "a device does not hold its writes for a take",
    plant: leftOut("hold", "trackers"),
  },
  {
    what: "a device is not switched by a take",
    seed: 2,
    plant: leftOut("switch", "areas"),
  },
  {
    what: "an area does not wake after a death",
    seed: 3,
    plant: unheard("wakeArea", null, always),
  },
  {
    what: "slots are never granted",
    seed: 2,
    plant: omitted(Snapshot.prototype, "serveSlots", always as never, Promise.resolve()),
  },
  {
    what: "the recovery of a front never ends",
    plant: omitted(UblkControl.prototype, "endRecovery", always as never, Promise.resolve()),
  },
  {
    what: "a flush of a front does not reach its disk",
    plant: () =>
      replace(UblkControl.prototype, "setParams", (original) => {
        return function (this: unknown, ...words: never[]): unknown {
          const [id, params, most] = words as unknown as [number, object, number];
          const wrong = { ...params, volatileCache: false };
          return original.apply(this, [id, wrong, most] as never);
        };
      }),
  },
  {
    what: "a durable write of a front is not durable",
    plant: omitted(Queue.prototype, "flags", always as never, 0),
  },
  {
    what: "the journal of a persistent map is not replayed after a power cut",
    seed: 50,
    plant: () =>
      replace(TrackerPersistence.prototype, "load", (original) => {
        return async function (this: unknown, ...words: never[]): Promise<unknown> {
          const restored = (await original.apply(this, words)) as object;
          return { ...restored, entries: [] };
        };
      }),
  },
  {
    what: "the record of a persistent map never says that its front is gone",
    seed: 524,
    deathOneIn: 30,
    plant: () =>
      replace(PersistentDirectory.prototype, "writeRecord", (original) => {
        return function (this: unknown, ...[name, value]: never[]): unknown {
          const { tracking, ...record } = value as { tracking?: object };
          const served = { ...record, tracking: { ...tracking, serving: true } };
          return original.apply(this, [name, tracking === undefined ? value : served] as never[]);
        };
      }),
  },
  {
    what: "writes of other programs while nothing tracked are not looked for",
    seed: 9,
    plant: () =>
      replace(TrackerPersistence, "prepare", (original) => {
        return async function (this: unknown, ...words: never[]): Promise<unknown> {
          const prepared = (await original.apply(this, words)) as { kind: string };
          if (prepared.kind !== "broken") return prepared;
          return { ...prepared, kind: "continues", chunkShift: CHUNK_SHIFT };
        };
      }),
  },
  {
    what: "the take of a persistent snapshot is not recorded on the medium",
    plant: omitted(
      SnapshotPersistence.prototype,
      "save",
      (({ state }: { state: string }) => state === "taken") as never,
    ),
  },
  {
    what: "the stores of a persistent snapshot are removed by a stop",
    seed: 3,
    plant: () =>
      replace(Snapshot.prototype, "closeStorage", (original) => {
        return function (this: unknown): unknown {
          return original.apply(this, []);
        };
      }),
  },
  {
    what: "the next daemon begins a new CBT map",
    plant: () =>
      replace(StateDirectory.prototype, "openMap", (original) => {
        return function (this: unknown, ...words: never[]): unknown {
          if ((words[0] as string).startsWith("cbt-")) throw new Error("planted");
          return original.apply(this, words);
        };
      }),
  },
];
