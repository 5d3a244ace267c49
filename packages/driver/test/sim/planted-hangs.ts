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
    what: "a write waits for ever for its old data to be saved",
    seed: 55,
    plant: omitted(CopyPath.prototype, "expire", always),
  },
  {
    what: "what was not saved in time is not told of as lost",
    seed: 51,
    plant: omitted(CopyPath.prototype, "giveUp" as never, always),
  },
  {
    what: "a read of an image waits for ever for its store",
    seed: 3,
    plant: omitted(ImagePath.prototype, "expire", always),
  },
  {
    what: "a write waits for ever for a journal",
    seed: 9,
    plant: omitted(JournalIo.prototype, "tick", always, true),
  },
  {
    what: "a detach waits for ever for what is to be on record of it",
    seed: 9,
    plant: () =>
      replace(MediumWork.prototype, "inTime", () => {
        return (...[work]: never[]): unknown => work;
      }),
  },
  {
    what: "what a map has is told only when its original has been synced",
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
    what: "writes continue without a journal that the next daemon believes",
    seed: 160,
    plant: omitted(TrackerPersistence.prototype, "fail", always, Promise.resolve()),
  },
];
