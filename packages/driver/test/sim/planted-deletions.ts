/** Faults in the handling of fronts and images that other programs delete, each of which has to be found. */
import "./load.js";
import { omitted, type PlantedFault } from "./planted-faults.js";

const { Tracker } = await import("../../dist/tracker/tracker.js");
const { Snapshot } = await import("../../dist/snapshot/snapshot.js");

const always = (() => true) as never;

export const PLANTED_DELETIONS: readonly PlantedFault[] = [
  {
    what: "nobody notices that a front has been deleted",
    plant: omitted(Tracker.prototype, "noteFrontEnd", always, false),
  },
  {
    what: "nobody says that an image has been deleted",
    seed: 22,
    plant: omitted(Snapshot.prototype, "fault", always),
  },
];
