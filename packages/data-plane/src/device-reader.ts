/** Reads what the reactors know about their devices; never waits long for a reactor that hangs. */

import { NO_AREA } from "./area-counter.js";
import type { AreaId } from "./area-id.js";
import type { DeviceIoCounters, TrackedDeviceCounters } from "./counters.js";
import { NO_DURATIONS } from "./durations.js";
import type { LostRange, ReactorRequest } from "./messages.js";
import type { ReactorPool } from "./pool.js";

/** How long status and metrics wait for new figures, before they use the last ones. */
const FIGURES_PATIENCE_MS = 5_000;

/** A tracker and the reactor that serves it; always the same object for a tracker. */
export interface ServedTracker {
  readonly id: number;
  readonly reactor: number;
}

export type DeviceCounters = Pick<
  TrackedDeviceCounters,
  "front" | "image" | "area" | "keptDiscardBytes" | "durations"
>;

const NO_IO: DeviceIoCounters = {
  reads: 0,
  readBytes: 0,
  writes: 0,
  writeBytes: 0,
  discards: 0,
  discardBytes: 0,
  flushes: 0,
  errors: 0,
};
const NO_COUNTERS: DeviceCounters = {
  front: NO_IO,
  image: NO_IO,
  keptDiscardBytes: 0,
  durations: NO_DURATIONS,
  area: NO_AREA,
};

/** Answers with the last values seen if a reactor does not answer. */
export class DeviceReader {
  readonly #reactors: ReactorPool;
  readonly #counters = new WeakMap<ServedTracker, DeviceCounters>();
  readonly #lostRanges = new WeakMap<ServedTracker, readonly LostRange[]>();

  constructor(reactors: ReactorPool) {
    this.#reactors = reactors;
  }

  counters(tracker: ServedTracker): Promise<DeviceCounters> {
    const request = { type: "counters", tracker: tracker.id } as const;
    return this.#ask(tracker, request, this.#counters, NO_COUNTERS);
  }

  lostRanges(tracker: ServedTracker, area: AreaId): Promise<readonly LostRange[]> {
    const request = { type: "lostRanges", tracker: tracker.id, area } as const;
    return this.#ask(tracker, request, this.#lostRanges, []);
  }

  /** Bytes written to all fronts together, as far as known. */
  async bytesWritten(trackers: Iterable<ServedTracker>): Promise<number> {
    const counters = await Promise.all([...trackers].map((tracker) => this.counters(tracker)));
    return counters.reduce((sum, { front }) => sum + front.writeBytes, 0);
  }

  async #ask<Value>(
    tracker: ServedTracker,
    request: ReactorRequest,
    seen: WeakMap<ServedTracker, Value>,
    otherwise: Value,
  ): Promise<Value> {
    const last = (): Value => seen.get(tracker) ?? otherwise;
    if ((this.#reactors.states[tracker.reactor]?.stalledMs ?? 0) > 0) return last();
    try {
      const value = await this.#reactors.request<Value | null>(
        tracker.reactor,
        request,
        FIGURES_PATIENCE_MS,
      );
      // The device is being attached or detached.
      if (value === null) return last();
      seen.set(tracker, value);
      return value;
    } catch {
      return last();
    }
  }
}
