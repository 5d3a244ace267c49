/** Verbs that wait for events: snapshot_waitevent, snapshot_watcher, events. */
import type { EventKind, EventOf, SnapshotEvent } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";
import { allEvents, RESUME_MS } from "../daemon-events.js";
import { resolveId } from "../resolve-id.js";
import { strerror } from "../strerror.js";
import { formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parseNumber, parseReader, parseTimeout } from "../values.js";
import type { Context, Given } from "../verb.js";

/** Timeout of one wait of the watcher, which then repeats it. */
const WATCH_WAIT_MS = 60_000;
const ENODEV = 19;

/** The reader's name, as an option of a wait. */
function readerOf(given: Given): { readonly reader?: string } {
  const name = given.one("reader");
  return name === undefined ? {} : { reader: parseReader(name) };
}

function isGone(error: unknown): boolean {
  return error instanceof BlksnapClientError && error.code === "SNAPSHOT_NOT_FOUND";
}

export async function waitEvent(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson } = context;
  const timeoutMs = parseTimeout(given.need("timeout"));
  const reader = readerOf(given);
  const id = await resolveId(client, given.need("id"));
  const signal = context.untilInterrupted();
  function printResult(result: string): void {
    if (json) printJson({ result });
    else print(`result=${result}\n`);
  }
  let event: SnapshotEvent | undefined;
  try {
    event = await client.waitEvent(id, timeoutMs, { signal, ...reader });
  } catch (error) {
    if (signal.aborted) return printResult("interrupted");
    if (isGone(error) && !json) printResult("not found");
    throw error;
  }
  if (event === undefined) return printResult("timeout");
  if (json) return printJson({ result: "ok", event });
  print(`result=ok\ntime=${nanoseconds(event)}\nevent=${event.event}\n`);
}

/** The time in the format of the module's tool. */
function nanoseconds({ time_us }: SnapshotEvent): string {
  return `${time_us}000`;
}

/** The line of the module's tool; undefined for events that it does not have. */
function watcherLine(event: SnapshotEvent): string | undefined {
  if (event.event === "corrupted") {
    return (
      `The snapshot was corrupted for device [${event.major}:${event.minor}]` +
      ` with error "${strerror(event.errno)}".`
    );
  }
  if (event.event === "no_space") {
    const mebibytes = Math.floor(event.allocated_bytes / 2 ** 20);
    // "The the" is intended: scripts for the module's tool look for it.
    return `The the difference storage already grow up to ${mebibytes} MiB. Limit has been reached.`;
  }
  return undefined;
}

export async function watcher(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson } = context;
  const reader = readerOf(given);
  const id = await resolveId(client, given.need("id"));
  const signal = context.untilInterrupted();
  if (!json) print("Start snapshot watcher.\n");
  let isFirst = true;
  try {
    for (;;) {
      // The first response comes at once, and says whether the snapshot exists.
      const event = await client.waitEvent(id, isFirst ? 0 : WATCH_WAIT_MS, { signal, ...reader });
      isFirst = false;
      if (event === undefined) continue;
      if (json) printJson(event);
      else print(`${nanoseconds(event)} - ${watcherLine(event) ?? describeEvent(event)}\n`);
      if (event.event === "corrupted") break;
    }
  } catch (error) {
    if (isGone(error) && !json) print("Snapshot not found\n");
    if (!signal.aborted && (isFirst || !isGone(error))) throw error;
  } finally {
    if (!json) print("Snapshot watcher finished\n");
  }
}

/** Each kind of event in words. */
const WORDS: { readonly [Kind in EventKind]: (event: EventOf<Kind>) => string } = {
  corrupted({ device, errno }) {
    if (errno === ENODEV) {
      return `image of ${device} is gone: another program has ended it, or its front`;
    }
    return `image of ${device} lost blocks: ${strerror(errno)}`;
  },
  no_space({ used_bytes, limit_bytes }) {
    const used = formatBytes(used_bytes, false);
    const limit = formatBytes(limit_bytes, false);
    return `the stores have grown to their limit of ${limit}, ${used} are used`;
  },
  low_free_space({ errno, free_bytes }) {
    const why = errno === null ? "" : `: ${strerror(errno)}`;
    return `the stores could not grow, ${formatBytes(free_bytes, false)} are free${why}`;
  },
  store_hung: ({ store, device }) =>
    `the store ${store} does not answer; ${device} continues without it`,
  store_answered: ({ store, device }) => `the store ${store} has answered ${device} again`,
  missed: ({ count }) => `${count} events were dropped before this one was read`,
};

/** An event in words. A newer daemon may send unknown kinds. */
export function describeEvent(event: SnapshotEvent): string {
  if (!Object.hasOwn(WORDS, event.event)) return `unknown event ${event.event}`;
  return (WORDS[event.event] as (of: SnapshotEvent) => string)(event);
}

function eventLine(event: SnapshotEvent): string {
  return `${event.wall_time} ${event.event}: ${describeEvent(event)}\n`;
}

export async function events(context: Context, given: Given): Promise<void> {
  if (given.has("all")) return allEvents(context, given);
  if (given.one("id") === undefined) {
    const hint = "Give --id UUID for a snapshot, --all for the whole daemon";
    throw usageError("neither --id nor --all is given", "USAGE", hint);
  }
  const { client, json, print, printJson } = context;
  if (given.one("since") !== undefined) {
    throw usageError("since: it needs --all", "USAGE", "Give --all; or --from");
  }
  const from = parseNumber(given.one("from") ?? "0", "from", Number.MAX_SAFE_INTEGER);
  if (given.one("from") !== undefined && !given.has("follow")) {
    throw usageError("from: it needs --follow", "USAGE", "Give --follow as well");
  }
  const id = await resolveId(client, given.need("id"));
  if (!given.has("follow")) {
    const kept = await client.listEvents(id);
    if (json) printJson({ events: kept });
    else print(kept.map(eventLine).join(""));
    return;
  }
  const signal = context.untilInterrupted();
  try {
    for await (const event of client.followEvents(id, from, { signal, resumeMs: RESUME_MS })) {
      if (json) printJson(event);
      else print(eventLine(event));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
