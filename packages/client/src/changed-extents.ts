/**
 * What changed on a device, extent by extent: sorted, disjoint, and of one take. A stream of millions that breaks off,
 * because the daemon is upgraded, continues at the offset that it had come to.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { DiffHead, DiffRange } from "@blksnap/api";
import { BlksnapClientError, errorFromAnswer } from "./client-error.js";
import { isInBetween } from "./daemon-change.js";
import { type CallOptions, parsed } from "./transport.js";

const PAUSE_MS = 50;

export interface ChangedExtentsOptions extends CallOptions {
  /** Fail unless the device's CBT still has this generation. */
  readonly generation?: string | undefined;
  /** Fail unless the last take still has this number. */
  readonly changesNumber?: number | undefined;
  /** Begin here, in the middle of an extent if need be. */
  readonly offsetBytes?: number | undefined;
  /** How long a daemon that has gone is waited for. */
  readonly resumeMs?: number | undefined;
  /** Called before the first extent: what take this is of, and how much has changed in all. */
  readonly onHead?: ((head: DiffHead) => void) | undefined;
}

/** Which extents are asked for. */
interface Wanted {
  readonly generation: string | undefined;
  readonly changes_number: number | undefined;
  readonly offset_bytes: number;
}

type Line = DiffHead | { readonly ranges: readonly DiffRange[] };

/** @param ask for the lines of an answer */
export async function* changedExtents(
  ask: (wanted: Wanted) => AsyncIterable<string>,
  options: ChangedExtentsOptions,
): AsyncGenerator<DiffRange> {
  const { resumeMs = 0, onHead } = options;
  let { generation, changesNumber: changes_number, offsetBytes: offset_bytes = 0 } = options;
  let isHeadTold = false;
  let lostAtMs: number | undefined;
  for (;;) {
    try {
      for await (const text of ask({ generation, changes_number, offset_bytes })) {
        const line = lineOf(text);
        lostAtMs = undefined;
        if (!("ranges" in line)) {
          // What is asked for again is of the same take, or it fails.
          generation = line.generation_id;
          changes_number = line.changes_number;
          if (!isHeadTold) onHead?.(line);
          isHeadTold = true;
          continue;
        }
        for (const extent of line.ranges) {
          if (extent.offset_bytes < offset_bytes) throw notSorted(extent);
          offset_bytes = extent.offset_bytes + extent.length_bytes;
          yield extent;
        }
      }
      return;
    } catch (error) {
      const nowMs = performance.now();
      lostAtMs ??= nowMs;
      if (resumeMs === 0 || !isInBetween(error) || nowMs - lostAtMs >= resumeMs) throw error;
    }
    await sleep(PAUSE_MS);
  }
}

function lineOf(text: string): Line {
  const error = errorFromAnswer(text);
  if (error !== undefined) throw error;
  return parsed<Line>(text);
}

function notSorted({ offset_bytes }: DiffRange): BlksnapClientError {
  const what = `the extent at ${offset_bytes} comes after one that ends behind that`;
  return new BlksnapClientError("RESPONSE_INVALID", what);
}
