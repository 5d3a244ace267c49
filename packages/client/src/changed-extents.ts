/**
 * What changed on a device, extent by extent: sorted, disjoint, and of one take. An interrupted stream, such as by an
 * upgrade of the daemon, continues at the offset that it had reached.
 */
import type { DiffHead, DiffRange } from "@blksnap/api";
import { BlksnapClientError, errorFromAnswer } from "./client-error.js";
import { resumed } from "./resumed.js";
import { type CallOptions, parsed } from "./transport.js";

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
  const askOn = () => linesOf(ask({ generation, changes_number, offset_bytes }));
  for await (const line of resumed(askOn, resumeMs)) {
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
