/** A tracker's CBT map, as a file on tmpfs that this thread and the tracker's reactor map. */

import { randomFillSync } from "node:crypto";
import { closeSync } from "node:fs";
import type { CbtReplay } from "@blksnap/data-plane";
import { CbtMap, CbtReason, cbtBlockShift, type TrackerGeometry } from "@blksnap/engine";
import { MappedMemory } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import { type RestoredCbt, restoreCbt } from "../records/restored-cbt.js";
import type { MapFile } from "../records/state-directory.js";
import { runUndo, type Undo } from "./undo.js";

export interface CbtFile {
  readonly cbtFile: MapFile;
  readonly cbtMemory: MappedMemory;
}

/** A new map: everything counts as changed, for this reason. */
export async function createCbt(
  context: DriverContext,
  id: number,
  geometry: TrackerGeometry,
  reason: number,
  undo: Undo,
  name: string = StateFile.cbtMap.name(id),
): Promise<CbtFile> {
  const { capacityBytes } = geometry;
  const { parameters } = context;
  const blockShift = cbtBlockShift(capacityBytes, {
    minimumShift: parameters.trackingBlockMinimumShift,
    maximumCount: parameters.trackingBlockMaximumCount,
    maximumShift: parameters.trackingBlockMaximumShift,
  });
  const lengthBytes = CbtMap.byteLength(capacityBytes, blockShift);
  const made = await makeFile(context, name, lengthBytes, undo);
  const generation = randomFillSync(new Uint8Array(16));
  CbtMap.create(made.cbtMemory.buffer, { capacityBytes, blockShift, generation, reason });
  return made;
}

/** The CBT map of an earlier daemon; if it cannot be used, a new one that says so. */
export async function openCbt(
  context: DriverContext,
  id: number,
  geometry: TrackerGeometry,
  undo: Undo,
): Promise<CbtFile> {
  let cbtFile: MapFile | undefined;
  let cbtMemory: MappedMemory | undefined;
  let reason: number = CbtReason.UNCLEAN;
  try {
    cbtFile = context.state.openMap(StateFile.cbtMap.name(id));
    cbtMemory = MappedMemory.file(cbtFile.fd, 0, cbtFile.lengthBytes);
    const { capacityBytes } = CbtMap.open(cbtMemory.buffer);
    if (capacityBytes < geometry.capacityBytes) {
      // See growth.ts: its map comes after the record that says so.
      reason = CbtReason.CAPACITY_CHANGED;
      throw new Error(`it covers ${capacityBytes} bytes; the device has grown`);
    }
    if (capacityBytes !== geometry.capacityBytes) throw new Error("it belongs to another device");
    const opened = { cbtFile, cbtMemory };
    undo.push(() => closeSync(opened.cbtFile.fd));
    undo.push(() => opened.cbtMemory.unmap());
    return opened;
  } catch (error) {
    cbtMemory?.unmap();
    if (cbtFile !== undefined) closeSync(cbtFile.fd);
    context.logger.error({ err: error }, `map cbt-${id} is not used: ${(error as Error).message}`);
    return await createCbt(context, id, geometry, reason, undo);
  }
}

/** Replaces an earlier daemon's map that misses what was written meanwhile. */
export function renewCbt(
  context: DriverContext,
  id: number,
  geometry: TrackerGeometry,
  undo: Undo,
): Promise<CbtFile> {
  return createCbt(context, id, geometry, CbtReason.UNCLEAN, undo);
}

/**
 * The map from the journal of a persistent tracker.
 * @throws EngineError, or Error, if it belongs to another device; leaves nothing behind in that case
 */
export async function loadCbt(
  context: DriverContext,
  id: number,
  geometry: TrackerGeometry,
  restored: RestoredCbt,
  undo: Undo,
): Promise<CbtFile & { replay: CbtReplay }> {
  const partly: Undo = [];
  try {
    const lengthBytes = CbtMap.restoredBytes(restored.checkpoint);
    const made = await makeFile(context, StateFile.cbtMap.name(id), lengthBytes, partly);
    const replay = restoreCbt(made.cbtMemory.buffer, restored);
    context.state.bindMap(made.cbtFile);
    const { capacityBytes } = CbtMap.open(made.cbtMemory.buffer);
    if (capacityBytes !== geometry.capacityBytes) throw new Error("the map is of another device");
    undo.push(...partly);
    return { ...made, replay };
  } catch (error) {
    await runUndo(partly);
    throw error;
  }
}

async function makeFile(
  context: DriverContext,
  name: string,
  lengthBytes: number,
  undo: Undo,
): Promise<CbtFile> {
  const cbtFile = await context.state.createMap(name, lengthBytes);
  undo.push(() => context.state.removeMap(cbtFile));
  const cbtMemory = MappedMemory.file(cbtFile.fd, 0, lengthBytes);
  undo.push(() => cbtMemory.unmap());
  return { cbtFile, cbtMemory };
}
