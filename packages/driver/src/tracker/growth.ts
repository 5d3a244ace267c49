/**
 * A front that grows with its original, under its users.
 *
 * ```
 *   new map, beside ─▶ record: the new size ─▶ reactor: new map, all of the original ─▶ the map takes its name
 *                                                       │ of a persistent tracker: new journal     │
 *                                                       └──────────────────────────────────────────▼
 *                                                               front: the new size, last of all
 * ```
 *
 * A daemon that is killed in between leaves a record of the new size with a map of the old one, in place of which the
 * next daemon begins a new generation, or with the new map, which is empty: before the first take in a generation
 * nothing has to be marked. The next daemon's check corrects the front's size (growth-watch.ts).
 */

import { faultPoint, type GrowReply, type JournalSetup, NoAnswerError } from "@blksnap/data-plane";
import { CbtMap, CbtReason, type TrackerGeometry } from "@blksnap/engine";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import type { MapFile } from "../records/state-directory.js";
import { GROWTH_HOLD_LIMIT_MS } from "../time-limits.js";
import { createCbt } from "./cbt-file.js";
import { geometryOf, geometryWith } from "./geometry.js";
import type { Tracker } from "./tracker.js";
import type { TrackerJournal } from "./tracker-journal.js";
import type { TrackerMap } from "./tracker-map.js";
import { writeTrackerRecord } from "./tracker-record.js";
import { runUndo, type Undo } from "./undo.js";

type Growing = Pick<
  Tracker,
  | "id"
  | "identity"
  | "device"
  | "backing"
  | "geometry"
  | "reactor"
  | "recordUuid"
  | "splice"
  | "front"
  | "loss"
  | "presentCapacityBytes"
  | "isEnding"
>;

/**
 * Nothing else may be done with the tracker's journal meanwhile.
 * @throws Error: the front has its size, or the new one, and it can be tried again. A reactor that has hung may have the
 * new map: no map is to be read then until the next growth, or take, has begun another generation
 */
export async function growFront(
  context: DriverContext,
  tracker: Growing,
  map: TrackerMap,
  journal: TrackerJournal | undefined,
): Promise<void> {
  const { device, front } = tracker;
  // Below a node its table says how large it is.
  if (tracker.isEnding || !front.isLive || tracker.splice !== undefined) return;
  const capacityBytes = await tracker.presentCapacityBytes();
  if (capacityBytes > map.geometry.capacityBytes) {
    const undo: Undo = [];
    try {
      await growMap(context, tracker, capacityBytes, map, journal, undo);
    } catch (error) {
      await runUndo(undo, (failure) => {
        context.logger.error({ device, err: failure }, "leftovers of a front that has not grown");
      });
      throw error;
    }
  }
  // Only now that all of it is tracked. A daemon before may have come as far as this.
  if (front.capacityBytes >= map.geometry.capacityBytes) return;
  await front.grow(map.geometry.capacityBytes);
  faultPoint("grow.front-grown");
}

async function growMap(
  context: DriverContext,
  tracker: Growing,
  capacityBytes: number,
  map: TrackerMap,
  journal: TrackerJournal | undefined,
  undo: Undo,
): Promise<void> {
  const { state, logger } = context;
  const { id, device, reactor } = tracker;
  const geometry = grownGeometry(context, tracker, capacityBytes);
  const name = StateFile.grownMap.name(id);
  if (map.file.name === name) throw new Error(`its map is still ${name}`);
  const made = await createCbt(context, id, geometry, CbtReason.CAPACITY_CHANGED, undo, name);
  const cbt = CbtMap.open(made.cbtMemory.buffer);
  faultPoint("grow.map-made");
  undo.push(() => record(context, tracker, map.geometry));
  record(context, tracker, geometry);
  faultPoint("grow.recorded");
  const exchange = (setup: JournalSetup | undefined) =>
    exchangeMap(context, tracker, geometry, made.cbtFile, setup).catch((error: unknown) => {
      if (!(error instanceof NoAnswerError && error.isTaken)) throw error;
      for (const one of [map.cbt, cbt]) one.corrupt();
      // The reactor may be about to map it: it stays open, and what comes next has another file.
      state.removeFile(name);
      undo.length = 0;
      throw error;
    });
  if (journal === undefined) await exchange(undefined);
  else await journal.grow(id, reactor, cbt, exchange);
  undo.length = 0;
  let cbtFile = made.cbtFile;
  try {
    cbtFile = state.replaceMap(map.file, made.cbtFile);
  } catch (error) {
    logger.error({ device, err: error }, "its map will not be found by the next daemon");
  }
  faultPoint("grow.map-replaced");
  map.exchange({ ...made, cbtFile }, cbt, geometry);
}

/**
 * Does nothing if another program has ended the front meanwhile: its record is gone then, because its number may be
 * another device's. @throws ControlError OUT_OF_MEMORY
 */
function record({ state }: DriverContext, tracker: Growing, geometry: TrackerGeometry): void {
  const { id, identity, backing, recordUuid, splice, front, loss } = tracker;
  if (!front.isLive) return;
  const parts = { id, identity, backing, geometry, recordUuid, splice };
  writeTrackerRecord(state, parts, front, loss);
}

/** @throws Error, NoAnswerError */
async function exchangeMap(
  { reactors }: DriverContext,
  { id: tracker, reactor }: Growing,
  geometry: TrackerGeometry,
  { fd, lengthBytes }: MapFile,
  journal: JournalSetup | undefined,
): Promise<void> {
  const cbt = { fd, lengthBytes };
  const deadlineMs = GROWTH_HOLD_LIMIT_MS;
  const request = { type: "grow", tracker, geometry, cbt, journal, deadlineMs } as const;
  const { why } = await reactors.request<GrowReply>(reactor, request);
  if (why !== undefined) throw new Error(why);
  faultPoint("grow.exchanged");
}

/** Cut up as before. @throws ControlError, Error: it cannot be */
function grownGeometry(
  { parameters }: Pick<DriverContext, "parameters">,
  { backing, geometry, device }: Growing,
  capacityBytes: number,
): TrackerGeometry {
  const params = { ...backing.params, capacityBytes };
  // What an attach would refuse.
  geometryOf({ ...backing, params }, parameters);
  const grown = geometryWith(params, geometry.chunkShift);
  if (grown.blockShift === geometry.blockShift) return grown;
  throw new Error(`${device} is too large for chunks of ${2 ** geometry.chunkShift} bytes`);
}
