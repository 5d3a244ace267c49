/** Faults in the handling of media that do not answer, each of which has to be found. */
import type { Tracker } from "../../dist/tracker/tracker.js";
import { omitted, type PlantedFault, replace } from "./planted-faults.js";

const { CopyPath } = await import("../../../engine/dist/copy-path.js");
const { ImagePath } = await import("../../../engine/dist/image-path.js");
const { JournalIo } = await import("../../../data-plane/dist/journal-io.js");
const { MediumWork } = await import("../../dist/records/medium-work.js");
const { TrackerPersistence } = await import("../../dist/records/tracker-persistence.js");
const { Registry } = await import("../../dist/registry.js");
const { whileOpenToSync } = await import("../../dist/snapshot/sync-all.js");

const always = (() => true) as never;

const SYNC_TIMEOUT_MS = 60_000;

export const PLANTED_HANGS: readonly PlantedFault[] = [
  {
    what: "a write waits without end for its copy",
    seed: 105,
    plant: omitted(CopyPath.prototype, "expire", always),
  },
  {
    what: "blocks that were not saved in time are not reported as lost",
    seed: 68,
    plant: omitted(CopyPath.prototype, "giveUp" as never, always),
  },
  {
    what: "a read of an image waits without end for its store",
    seed: 9,
    plant: omitted(ImagePath.prototype, "expire", always),
  },
  {
    what: "a write waits without end for a journal",
    seed: 10,
    plant: omitted(JournalIo.prototype, "tick", always, true),
  },
  {
    what: "a detach waits without end for its record",
    seed: 9,
    plant: () =>
      replace(MediumWork.prototype, "inTime", () => {
        return (...[work]: never[]): unknown => work;
      }),
  },
  {
    what: "reads and marks of a map wait for a sync of the original",
    seed: 22,
    plant: () =>
      replace(Registry.prototype, "intact", (original) => {
        return async function (this: unknown, ...words: never[]): Promise<unknown> {
          const tracker = (await original.apply(this, words)) as Pick<Tracker, "backing">;
          await whileOpenToSync([tracker.backing], SYNC_TIMEOUT_MS, (sync) => sync());
          return tracker;
        };
      }),
  },
  {
    what: "writes continue without their journal, and the next daemon trusts it",
    seed: 167,
    plant: omitted(TrackerPersistence.prototype, "fail", always, Promise.resolve()),
  },
];
