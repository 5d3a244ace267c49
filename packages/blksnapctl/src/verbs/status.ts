/** status and version. */
import type { SnapshotStatus, StatusResponse, TrackerStatus } from "@blksnap/api";
import { freezeLines } from "../freeze-text.js";
import { isNbdAddress } from "../nbd-address.js";
import { fillBar, glyphsFor } from "../pictures.js";
import { type Column, formatTable } from "../table.js";
import { configurationTroubles, stalledReactors, stateOf, troublesOf } from "../troubles.js";
import { counted, formatBytes, formatMicroseconds, formatSeconds } from "../units.js";
import type { Context, Given } from "../verb.js";

const BAR_WIDTH = 24;
/** Keeps lines within 80 columns; longer names have their own lines. */
const NAME_WIDTH_MAX = 24;

export async function version({ client, json, print, printJson }: Context): Promise<void> {
  const found = await client.version();
  if (json) return printJson(found);
  print(`${found.interface}\n`);
}

export async function status(context: Context, given: Given): Promise<void> {
  const found = await context.client.status();
  if (context.json) return context.printJson(found);
  const exact = given.has("bytes");
  const { print } = context;
  print(daemonLine(found));
  for (const { what, hint } of configurationTroubles(found)) print(`! ${what}. ${hint}.\n`);
  for (const { what, why, hint } of stalledReactors(found)) print(`! ${what}: ${why}. ${hint}.\n`);
  for (const { device, front, why } of found.waiting) {
    print(`${front} of ${device} is not served yet, and its users wait: ${why}\n`);
  }
  // A daemon of an earlier version does not report it.
  for (const { device, since, why, given_up } of found.untracked ?? []) {
    const tried = given_up ? "NOT retried automatically" : "tried again";
    const yet = why === null ? "it is being attached again" : `it is ${tried}: ${why}`;
    print(`! ${device} is NOT tracked since ${since}, as its node got another table; ${yet}\n`);
  }
  if (found.trackers.length > 0) print(`\n${trackerTable(found, exact)}`);
  const snapshots = found.snapshots.toSorted((a, b) => a.created_at.localeCompare(b.created_at));
  for (const snapshot of snapshots) print(`\n${snapshotText(snapshot, exact, context)}`);
}

function daemonLine({ daemon, trackers, snapshots }: StatusResponse): string {
  return (
    `blksnapd ${daemon.version}, pid ${daemon.pid}, up ${formatSeconds(daemon.uptime_ms / 1000)}: ` +
    `${counted(trackers.length, "device")}, ${counted(snapshots.length, "snapshot")}\n`
  );
}

function byName(a: { readonly device: string }, b: { readonly device: string }): number {
  return a.device.localeCompare(b.device, "en", { numeric: true });
}

function trackerTable({ trackers, snapshots }: StatusResponse, exact: boolean): string {
  const troubles = new Map(trackers.map((one) => [one, troublesOf(one, snapshots)]));
  const columns: readonly Column<TrackerStatus>[] = [
    { title: "DEVICE", value: ({ device }) => device },
    { title: "FRONT", value: ({ front }) => nodeCell(front) },
    {
      title: "SIZE",
      align: "right",
      value: (tracker) => formatBytes(tracker.capacity_bytes, exact),
    },
    { title: "SNAPSHOT", value: (tracker) => tracker.snapshot_id?.slice(0, 8) ?? "-" },
    { title: "IMAGE", value: (tracker) => nodeCell(tracker.image) },
    { title: "STATE", value: (tracker) => stateOf(troubles.get(tracker)!) },
  ];
  return formatTable(trackers.toSorted(byName), columns, {
    firstWidthMax: NAME_WIDTH_MAX,
    details: (tracker) => [
      trackingLine(tracker, exact),
      ...addressLines(tracker),
      ...troubles.get(tracker)!.map(({ what, hint }) => `! ${what}. ${hint}.`),
    ],
  });
}

/** The address of an export is much longer than other cells: it has a line of its own. */
function nodeCell(path: string | null): string {
  if (path === null) return "-";
  return isNbdAddress(path) ? "NBD" : path;
}

function addressLines({ front, image }: TrackerStatus): string[] {
  const all = [
    ["front", front],
    ["image", image ?? ""],
  ] as const;
  return all.flatMap(([name, path]) => (isNbdAddress(path) ? `${name} ${path}` : []));
}

function trackingLine(tracker: TrackerStatus, exact: boolean): string {
  const { io, cbt, persistence, splice } = tracker;
  const parts = [
    ...(splice?.state === "on" ? [`live: use ${splice.node}`] : []),
    `number ${cbt.changes_number}`,
    `CBT block ${formatBytes(cbt.block_bytes, exact)}`,
    `written ${formatBytes(io.write_bytes, exact)}`,
    ...(persistence.state === "on" ? ["persistent"] : []),
  ];
  return parts.join(", ");
}

function snapshotText(snapshot: SnapshotStatus, exact: boolean, context: Context): string {
  const { limit_bytes, used_bytes, stall_us } = snapshot;
  const when = snapshot.taken
    ? `taken ${snapshot.taken_at ?? ""}, writers waited ${formatMicroseconds(stall_us ?? 0)}`
    : "not taken";
  const fraction = limit_bytes === 0 ? 1 : used_bytes / limit_bytes;
  const bar = fillBar(fraction, BAR_WIDTH, glyphsFor(context.environment));
  const filling = fillingText(snapshot.full_in_ms);
  const events =
    snapshot.events_pending === 0 ? "" : `, ${counted(snapshot.events_pending, "event")} unread`;
  const devices = formatTable(
    snapshot.devices.toSorted(byName),
    [
      { title: "DEVICE", value: ({ device }) => device },
      { title: "IMAGE", value: ({ image }) => nodeCell(image) },
      { title: "SAVED", align: "right", value: (row) => formatBytes(row.copied_bytes, exact) },
      { title: "LOST", align: "right", value: (row) => formatBytes(row.lost_bytes, exact) },
    ],
    { firstWidthMax: NAME_WIDTH_MAX },
  );
  const stores = formatTable(
    snapshot.stores,
    [
      { title: "STORE", value: ({ path }) => path },
      { title: "KIND", value: ({ kind }) => kind },
      { title: "USED", align: "right", value: (row) => formatBytes(row.used_bytes, exact) },
      {
        title: "ALLOCATED",
        align: "right",
        value: (row) => formatBytes(row.allocated_bytes, exact),
      },
      { title: "STATE", value: ({ hung }) => (hung ? "does not answer" : "ok") },
    ],
    { firstWidthMax: NAME_WIDTH_MAX },
  );
  return (
    `${context.bold(`Snapshot ${snapshot.id}`)}\n` +
    `${when}${events}\n` +
    `[${bar}] ${formatBytes(used_bytes, exact)} of ${formatBytes(limit_bytes, exact)}${filling}\n` +
    `on overflow: ${overflowText(snapshot)}\n` +
    indent(snapshot.devices.length > 0 ? devices + stores : stores) +
    indent(
      freezeLines(snapshot.file_systems)
        .map((line) => `${line}\n`)
        .join(""),
    )
  );
}

function fillingText(fullInMs: number | null): string {
  if (fullInMs === null) return "";
  return fullInMs === 0 ? ", full" : `, full in ${formatSeconds(fullInMs / 1000)}`;
}

function overflowText({ on_overflow: { policy, timeout_ms } }: SnapshotStatus): string {
  return timeout_ms === undefined ? policy : `${policy} for ${formatSeconds(timeout_ms / 1000)}`;
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, "  ");
}
