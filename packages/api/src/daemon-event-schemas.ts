/**
 * Events of the whole daemon: DAEMON_EVENTS lists the kinds, each with its severity. Code that creates or words them
 * has a table by kind, so a kind that is missing there fails to compile.
 */
import type { JSONSchema } from "json-schema-to-ts";
import { list, record, recordWithOptional } from "./build.js";
import { EVENTS } from "./event-schemas.js";
import * as is from "./scalars.js";
import { generationReason } from "./tracker-schemas.js";

/** info: normal. warning: look at it when you can. error: data, tracking or service is lost or stalled. */
export const SEVERITIES = ["info", "warning", "error"] as const;
type Severity = (typeof SEVERITIES)[number];
type Fields = Readonly<Record<string, JSONSchema>>;

const LOG_PATTERN = "[0-9a-f]{8}";
const log = {
  type: "string",
  pattern: `^${LOG_PATTERN}$`,
  description: "identifies the log that sequence numbers belong to; each boot begins a new log",
} as const;

function kind<const Kind extends string, const S extends Severity, const F extends Fields>(
  event: Kind,
  severity: S,
  description: string,
  fields: F,
) {
  const schema = record({
    sequence: { ...is.count, description: "counts from 1 within a log" },
    log,
    wall_time: is.wallTime,
    severity: { type: "string", const: severity },
    event: { type: "string", const: event },
    ...fields,
  });
  return { ...schema, description } as const;
}

const device = { ...is.text, description: "its original" } as const;
const front = { ...is.text, description: "/dev/ublkbN" } as const;
const inSnapshot = { id: is.uuid, device } as const;
const newCount = { ...is.count, description: "since the last such event of the device" } as const;
const why = is.text;
const ofDevice = { device, front } as const;
const generation = { generation_id: is.uuid, generation_reason: generationReason } as const;
const hook = {
  id: { ...is.uuid, description: "of the snapshot" },
  phase: { type: "string", enum: ["pre", "post"] },
  hook: { ...is.text, description: "name of the file" },
} as const;

type SnapshotEventKind = (typeof EVENTS)[number]["properties"]["event"]["const"];

/** Of an event of one snapshot, which has the same name here, with its id. */
function descriptionOf(kind: SnapshotEventKind): string {
  return EVENTS.find(({ properties }) => properties.event.const === kind)!.description;
}

export const DAEMON_EVENTS = [
  kind("daemon_started", "info", "A daemon serves.", {
    pid: is.count,
    version: is.text,
    cause: {
      type: "string",
      enum: ["start", "crash", "handover"],
      description: "crash: the one before it ended without leaving its devices on purpose",
    },
    pause_ms: { ...is.countOrNull, description: "without a daemon; null where it is not known" },
  }),
  kind("daemon_ended", "info", "The daemon ends on purpose.", {
    pid: is.count,
    keeps: { ...is.flag, description: "devices are left to the next daemon" },
  }),
  kind("attached", "info", "A device is tracked from now on.", {
    ...ofDevice,
    attach_kind: { type: "string", enum: ["front", "live"] },
    persistent: is.flag,
    ...generation,
  }),
  kind("detached", "info", "A device is not tracked any more.", ofDevice),
  kind("resumed", "info", "A front of an earlier daemon was resumed.", ofDevice),
  kind("front_waiting", "error", "A front cannot be served yet: its users wait.", {
    ...ofDevice,
    why,
  }),
  kind("front_ended", "error", "Another program has ended a front: detach its device.", ofDevice),
  kind("renamed", "info", "The node of a live attach was renamed.", {
    ...ofDevice,
    name_before: is.text,
  }),
  kind(
    "splice_lost",
    "error",
    "The node of a live attach no longer leads to its front: writes are missed.",
    {
      ...ofDevice,
      node: is.text,
      why: is.textOrNull,
    },
  ),
  kind("untracked", "error", "A volume cannot be attached again yet: nothing tracks it.", {
    device: is.text,
    node: is.text,
    why,
    given_up: { ...is.flag, description: "only users attach it again" },
  }),
  kind(
    "generation_began",
    "warning",
    "Change tracking began a new generation: the next backup is a full one.",
    {
      ...ofDevice,
      ...generation,
      why: is.textOrNull,
    },
  ),
  kind("persistence_failed", "error", "The change map will not survive a stop.", {
    ...ofDevice,
    why: is.textOrNull,
  }),
  kind("capacity_changed", "warning", "The size of an original differs from that of its front.", {
    ...ofDevice,
    capacity_bytes: { ...is.count, description: "of the front" },
    original_capacity_bytes: is.count,
    why: { ...is.text, description: "why the front does not follow, and what to do" },
  }),
  kind(
    "front_errors",
    "error",
    "Requests of a front failed, mostly because its original failed them.",
    {
      ...ofDevice,
      count: newCount,
    },
  ),
  kind("front_grown", "info", "A front has become larger, as its original has.", {
    ...ofDevice,
    capacity_bytes: is.count,
    capacity_before_bytes: is.count,
  }),
  kind("snapshot_created", "info", "A snapshot was created, not yet taken.", {
    id: is.uuid,
    devices: list(is.text),
  }),
  kind("snapshot_taken", "info", "A snapshot was taken.", {
    id: is.uuid,
    devices: list(is.text),
    stall_us: { ...is.countOrNull, description: "longest time that a writer waited" },
  }),
  kind("snapshot_resumed", "info", "A snapshot of an earlier daemon continues.", {
    id: is.uuid,
    devices: list(is.text),
  }),
  kind("take_failed", "error", "A take failed and was rolled back.", {
    id: is.text,
    code: { ...is.text, description: "name of the error" },
    why,
  }),
  kind("snapshot_not_persistent", "error", "A snapshot will no longer survive a stop.", {
    id: is.uuid,
  }),
  kind("snapshot_destroyed", "info", "A snapshot was destroyed.", {
    id: is.uuid,
    devices: list(is.text),
  }),
  kind("snapshot_lost", "error", "A snapshot of an earlier daemon could not be resumed.", {
    id: is.uuid,
    devices: list(is.text),
  }),
  kind("corrupted", "error", descriptionOf("corrupted"), {
    id: is.uuid,
    device,
    errno: { ...is.count, description: "positive" },
  }),
  kind("no_space", "warning", descriptionOf("no_space"), {
    id: is.uuid,
    allocated_bytes: is.count,
    limit_bytes: is.count,
    used_bytes: is.count,
  }),
  kind("low_free_space", "warning", descriptionOf("low_free_space"), {
    id: is.uuid,
    wanted_bytes: is.count,
    free_bytes: is.count,
    errno: is.countOrNull,
  }),
  kind("store_hung", "error", descriptionOf("store_hung"), { ...inSnapshot, store: is.text }),
  kind("store_answered", "info", descriptionOf("store_answered"), {
    ...inSnapshot,
    store: is.text,
  }),
  kind("writes_refused", "error", "Writes failed with ENOSPC, as on-overflow says.", {
    ...inSnapshot,
    count: newCount,
  }),
  kind("writes_blocked", "warning", "Writes waited for space for old data.", {
    ...inSnapshot,
    count: newCount,
  }),
  kind("late_io", "warning", "A store did not answer in time, and writers continued without it.", {
    ...inSnapshot,
    count: newCount,
  }),
  kind("reactor_stalled", "error", "A reactor is stalled: its devices do not answer.", {
    reactor: is.count,
    devices: list(is.text),
  }),
  kind("reactor_turns", "info", "A stalled reactor runs again.", { reactor: is.count }),
  kind(
    "config_mistake",
    "error",
    "The configuration has mistakes: an earlier one stays in force.",
    {
      mistakes: list(is.text),
    },
  ),
  kind("device_missing", "error", "A device of the configuration is given up.", {
    device,
    from: { ...is.text, description: "file and line" },
    why,
  }),
  kind("hook_ran", "info", "A hook succeeded.", {
    ...hook,
    duration_ms: is.count,
  }),
  kind("hook_failed", "error", "A hook failed, ran too long, or was refused as unsafe.", {
    ...hook,
    why,
    duration_ms: is.count,
  }),
  kind("lost", "warning", "Events before this one are no longer kept.", {
    count: { ...is.countOrNull, description: "how many; null where it is unknown" },
  }),
] as const;

export const daemonEvent = { anyOf: DAEMON_EVENTS } as const;

export const daemonEventsQuery = recordWithOptional(
  {},
  {
    since: {
      ...is.count,
      description: "only events after this sequence number",
    },
    log: { ...log, description: "of that number" },
    follow: { ...is.flag, description: "follow new events, too; default: false" },
  },
);
/** Other headers are allowed. */
export const daemonEventsHeaders = {
  type: "object",
  properties: {
    "last-event-id": {
      type: "string",
      pattern: `^${LOG_PATTERN}:[0-9]{1,15}$`,
      description: "log and sequence number of the last event that has arrived",
    },
  },
} as const;
