/** Faults in what becomes of media that do not answer, each of which has to be found. */
import { omitted, type PlantedFault } from "./planted-faults.js";

const { CopyPath } = await import("../../../engine/dist/copy-path.js");
const { ImagePath } = await import("../../../engine/dist/image-path.js");
const { JournalIo } = await import("../../../data-plane/dist/journal-io.js");

const always = (() => true) as never;

export const PLANTED_HANGS: readonly PlantedFault[] = [
  {
    what: "a write waits for ever for its old data to be saved",
    seed: 2,
    plant: omitted(CopyPath.prototype, "expire", always),
  },
  {
    what: "what was not saved in time is not told of as lost",
    seed: 5,
    plant: omitted(CopyPath.prototype, "giveUp" as never, always),
  },
  {
    what: "a read of an image waits for ever for its store",
    seed: 2,
    plant: omitted(ImagePath.prototype, "expire", always),
  },
  {
    what: "a write waits for ever for a journal",
    seed: 5,
    plant: omitted(JournalIo.prototype, "tick", always, true),
  },
];
