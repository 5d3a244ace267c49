/** events --all: events of the whole daemon, in words or as JSON. */
import type { DaemonEvent, DaemonEventKind, DaemonEventOf } from "@blksnap/api";
import { quoted } from "./argv.js";
import { strerror } from "./strerror.js";
import { counted, formatBytes } from "./units.js";
import { usageError } from "./usage-error.js";
import type { Context, Given } from "./verb.js";

/** How long --follow waits for the next daemon, as after an upgrade or a crash. */
export const RESUME_MS = 60_000;

function because(why: string | null): string {
  return why === null ? "" : `: ${why}`;
}

function amount(bytes: number): string {
  return formatBytes(bytes, false);
}

const STARTED: Readonly<Record<DaemonEventOf<"daemon_started">["cause"], string>> = {
  start: "was started",
  crash: "continues after a crash of its predecessor",
  handover: "continues for its predecessor",
};

/** Each kind of event in words. */
const WORDS: { readonly [Kind in DaemonEventKind]: (event: DaemonEventOf<Kind>) => string } = {
  daemon_started: ({ pid, version, cause, pause_ms }) =>
    `blksnapd ${version}, pid ${pid}, ${STARTED[cause]}` +
    (pause_ms === null ? "" : `, after a pause of ${pause_ms} ms`),
  daemon_ended: ({ pid, keeps }) =>
    `blksnapd, pid ${pid}, ends${keeps ? " and leaves its devices to the next one" : ""}`,
  attached: ({ device, front, attach_kind, persistent, generation_reason }) =>
    `${device} is tracked by ${front}${attach_kind === "live" ? ", live" : ""}` +
    `${persistent ? ", persistent" : ""}` +
    ` (${generation_reason})`,
  detached: ({ device }) => `${device} is not tracked any more`,
  resumed: ({ device, front }) => `${front} of ${device} is served again`,
  front_waiting: ({ device, front, why }) => `users of ${front} wait for ${device}: ${why}`,
  front_ended: ({ device, front }) =>
    `another program has ended ${front}; detach ${device} and attach it again`,
  renamed: ({ device, name_before }) => `${name_before} is now called ${device}`,
  splice_lost: ({ node, front, why }) =>
    `${node} no longer leads to ${front}, writes are missed${because(why)}`,
  untracked: ({ device, why, given_up }) =>
    `${device} is not tracked, and ${given_up ? "is NOT attached again automatically" : "cannot be attached again yet"}: ${why}`,
  generation_began: ({ device, generation_reason, why }) =>
    `change tracking of ${device} began a new generation (${generation_reason})${because(why)}`,
  persistence_failed: ({ device, why }) =>
    `the change map of ${device} will not survive a stop${because(why)}`,
  capacity_changed: ({ device, capacity_bytes, original_capacity_bytes, why }) =>
    `${device} has ${amount(original_capacity_bytes)} now, its front ${amount(capacity_bytes)}: ${why}`,
  front_grown: ({ device, front, capacity_bytes, capacity_before_bytes }) =>
    `${front} has grown with ${device}, from ${amount(capacity_before_bytes)} to ${amount(capacity_bytes)}`,
  snapshot_created: ({ id, devices }) => `${id} of ${devices.join(", ") || "no device yet"}`,
  snapshot_taken: ({ id, devices, stall_us }) =>
    `${id} of ${devices.join(", ")}` +
    (stall_us === null ? "" : `; writers waited for ${stall_us} us`),
  snapshot_resumed: ({ id, devices }) => `${id} of ${devices.join(", ")} continues`,
  take_failed: ({ id, code, why }) => `${id} was not taken: ${code}: ${why}`,
  front_errors: ({ device, front, count }) =>
    `${counted(count, "request")} of ${front} failed: see dmesg for errors of ${device}`,
  snapshot_not_persistent: ({ id }) => `${id} will no longer survive a stop`,
  snapshot_destroyed: ({ id }) => id,
  snapshot_lost: ({ id, devices }) => `${id} of ${devices.join(", ")} could not be resumed`,
  corrupted: ({ id, device, errno }) =>
    `image of ${device} in ${id} lost blocks: ${strerror(errno)}`,
  no_space: ({ id, used_bytes, limit_bytes }) =>
    `the stores of ${id} are at their limit of ${amount(limit_bytes)}, ${amount(used_bytes)} are used`,
  low_free_space: ({ id, free_bytes, errno }) =>
    `the stores of ${id} could not grow, ${amount(free_bytes)} are free` +
    because(errno === null ? null : strerror(errno)),
  store_hung: ({ id, device, store }) =>
    `the store ${store} of ${id} does not answer; ${device} continues without it`,
  store_answered: ({ device, store }) => `the store ${store} has answered ${device} again`,
  writes_refused: ({ id, device, count }) =>
    `${counted(count, "write")} to ${device} failed for lack of space in the stores of ${id}`,
  writes_blocked: ({ id, device, count }) =>
    `${counted(count, "write")} to ${device} waited for space in the stores of ${id}`,
  late_io: ({ id, device, count }) =>
    `${counted(count, "request")} of ${device} to the stores of ${id} ${count === 1 ? "was" : "were"} late`,
  reactor_stalled: ({ reactor, devices }) =>
    `reactor ${reactor} is stalled, and does not serve ${devices.join(", ")}`,
  reactor_turns: ({ reactor }) => `reactor ${reactor} runs again`,
  config_mistake: ({ mistakes }) =>
    `the configuration has mistakes, and an earlier one stays in force: ${mistakes.join("; ")}`,
  device_missing: ({ device, from, why }) => `${device} (${from}) is given up: ${why}`,
  hook_ran: ({ hook, phase, id, duration_ms }) => `${hook} ${phase} of ${id}, in ${duration_ms} ms`,
  hook_failed: ({ hook, phase, id, why }) => `${hook} ${phase} of ${id}: ${why}`,
  lost: ({ count }) =>
    count === null
      ? "earlier events are unknown"
      : `${counted(count, "event")} lost: no longer kept`,
};

/** An event in words. A newer daemon may send unknown kinds. */
function describe(event: DaemonEvent): string {
  if (!Object.hasOwn(WORDS, event.event)) return `unknown event ${event.event}`;
  return (WORDS[event.event] as (of: DaemonEvent) => string)(event);
}

function eventLine(event: DaemonEvent): string {
  const { sequence, wall_time, severity } = event;
  return `${wall_time} ${sequence} ${severity} ${event.event}: ${describe(event)}\n`;
}

/** @throws BlksnapClientError USAGE */
function beginning(given: Given): { readonly since?: number; readonly log?: string } {
  const text = given.one("since");
  if (text === undefined) return {};
  const [, log, since] = /^(?:([0-9a-f]{8}):)?([0-9]{1,15})$/.exec(text) ?? [];
  if (since === undefined) {
    const hint = "Give the sequence number of an event, or log:sequence";
    throw usageError(`since: ${quoted(text)} is not an event number`, "USAGE", hint);
  }
  return { since: Number(since), ...(log === undefined ? {} : { log }) };
}

export async function allEvents(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson } = context;
  for (const name of ["id", "from"]) {
    if (given.one(name) === undefined) continue;
    const hint = name === "id" ? "Give one of both" : "Give --since with --all";
    throw usageError(`${name}: it cannot be combined with --all`, "USAGE", hint);
  }
  const follow = given.has("follow");
  const signal = context.untilInterrupted();
  const options = { ...beginning(given), follow, signal, resumeMs: RESUME_MS };
  try {
    for await (const event of client.daemonEvents(options)) {
      if (json) printJson(event);
      else print(eventLine(event));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
