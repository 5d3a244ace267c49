/**
 * The changed extents of a device: sorted, disjoint, and of one take. A stream that is interrupted, as by an upgrade
 * of the daemon, resumes at the offset that it had reached.
 */
import type { DiffHead, DiffRange } from "@blksnap/api";
import { BlksnapClientError, errorFromAnswer } from "./client-error.js";
import { resumed } from "./resumed.js";
import { type CallOptions, parsed } from "./transport.js";

export interface ChangedExtentsOptions extends CallOptions {
  /** Fail if the device's CBT has another generation now. */
  readonly generation?: string | undefined;
  /** Fail if the last take has another number now. */
  readonly changesNumber?: number | undefined;
  /** Begin here, even in the middle of an extent. */
  readonly offsetBytes?: number | undefined;
  /** How long to wait for a daemon that is gone. */
  readonly resumeMs?: number | undefined;
  /** Called before the first extent with the number of the take and the total of changes. */
  readonly onHead?: ((head: DiffHead) => void) | undefined;
}

/** The requested extents. */
interface Wanted {
  readonly generation: string | undefined;
  readonly changes_number: number | undefined;
  readonly offset_bytes: number;
}

type Line = DiffHead | { readonly ranges: readonly DiffRange[] };

/** @param ask requests the lines of a response */
export async function* changedExtents(
  ask: (wanted: Wanted) => AsyncIterable<string>,
  options: ChangedExtentsOptions,
): AsyncGenerator<DiffRange> {
  const { resumeMs = 0, onHead } = options;
  let { generation, changesNumber: changes_number, offsetBytes: offset_bytes = 0 } = options;
  let isHeadReported = false;
  const askOn = () => linesOf(ask({ generation, changes_number, offset_bytes }));
  for await (const line of resumed(askOn, resumeMs)) {
    if (!("ranges" in line)) {
      // A repeated request returns the same take, or fails.
      generation = line.generation_id;
      changes_number = line.changes_number;
      if (!isHeadReported) onHead?.(line);
      isHeadReported = true;
      continue;
    }
    for (const extent of line.ranges) {
      if (extent.offset_bytes < offset_bytes) throw notSorted(extent);
      offset_bytes = extent.offset_bytes + extent.length_bytes;
      yield extent;
    }
  }
}

async function* linesOf(texts: AsyncIterable<string>): AsyncGenerator<Line> {
  for await (const text of texts) yield lineOf(text);
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
