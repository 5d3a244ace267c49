/**
 * Events of a snapshot: EVENTS lists the kinds. Code that creates or words them has a table by kind, so a kind that
 * is missing there fails to compile.
 */
import { list, record, recordWithOptional } from "./build.js";
import * as is from "./scalars.js";

type Fields = Parameters<typeof record>[0];

/** @param description goes into the description of the API */
function event<const Kind extends string, const F extends Fields>(
  kind: Kind,
  description: string,
  fields: F,
) {
  const schema = record({
    sequence: { ...is.count, minimum: 1, description: "counts from 1 within a snapshot" },
    time_us: { ...is.count, description: "CLOCK_MONOTONIC" },
    wall_time: is.wallTime,
    event: { type: "string", const: kind },
    ...fields,
  });
  return { ...schema, description } as const;
}

export const EVENTS = [
  event("corrupted", "A device's image lost blocks; sent once per device.", {
    device: is.text,
    major: is.count,
    minor: is.count,
    errno: { ...is.count, description: "positive" },
  }),
  event(
    "no_space",
    "The stores have reached their limit, and half of the last portion is used; sent once.",
    {
      allocated_bytes: { ...is.count, description: "space on the stores" },
      limit_bytes: is.count,
      used_bytes: is.count,
    },
  ),
  event("low_free_space", "The stores could not grow in time; growth is retried.", {
    wanted_bytes: { ...is.count, description: "still to be added" },
    free_bytes: is.count,
    errno: { ...is.countOrNull, description: "positive; of the failed growth; null for none" },
  }),
  event(
    "store_hung",
    "A store did not answer in time; it gets no I/O for this device until it answers.",
    { store: is.text, device: is.text },
  ),
  event("store_answered", "The store has answered all late I/O.", {
    store: is.text,
    device: is.text,
  }),
  event(
    "missed",
    "Events were dropped before they were read; their numbers end before `sequence`.",
    { count: is.count },
  ),
] as const;

export const snapshotEvent = { anyOf: EVENTS } as const;

export const waitEventQuery = recordWithOptional(
  { timeout_ms: { type: "integer", minimum: 0, maximum: is.EVENT_TIMEOUT_MAX_MS } },
  {
    reader: {
      type: "string",
      pattern: "^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}$",
      description: "each reader name gets all events; at most 64 names",
    },
  },
);
export const waitEventResponse = {
  anyOf: [
    record({ result: { type: "string", const: "ok" }, event: snapshotEvent }),
    record({ result: { type: "string", const: "timeout" } }),
  ],
} as const;

/** All kept events, taken or not, the oldest first; reading takes none. */
export const listEventsResponse = record({ events: list(snapshotEvent) });

/** The header by which a client of server-sent events names the last one that it received. */
export const LAST_EVENT_ID = "last-event-id";
/** Other headers are allowed. */
export const followEventsHeaders = {
  type: "object",
  properties: {
    [LAST_EVENT_ID]: {
      type: "string",
      pattern: "^[0-9]{1,15}$",
      description: "sequence number of the last event received; the stream begins after it",
    },
  },
} as const;

export const followEventsQuery = recordWithOptional(
  {},
  { from: { ...is.count, description: "first sequence number to return; 0 for all kept events" } },
);
