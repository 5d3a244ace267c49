/** export: a backup of a device, as a point in time, raw copy, qcow2 file or stream. */
import { dirname } from "node:path";
import type {
  ExportOptions,
  ExportPlan,
  KeptReason,
  Manifest,
  Qcow2Export,
  RawExport,
  StreamExport,
  Wanted,
} from "@blksnap/backup";
import { quoted } from "../argv.js";
import { checkBucketOptions, isBucket, openBackups } from "../backup-place.js";
import { progressReporter } from "../transfer.js";
import { formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parseLimit, parseNumber, parsePath, parseStores, STANDARD_STREAM } from "../values.js";
import type { Context, Given } from "../verb.js";

const NUMBER_MAX = 254;
const STORE_DEFAULT = "/var/tmp";
const LIMIT_DEFAULT_BYTES = 2 ** 30;

function wantedOf(given: Given): Wanted {
  const since = given.one("since");
  if (since === undefined) return { kind: given.has("auto") ? "auto" : "full" };
  const number = parseNumber(since, "since", NUMBER_MAX);
  if (!given.has("auto")) return { kind: "since", number };
  throw usageError("since: --auto determines it", "USAGE", "Give --auto or --since");
}

/** What a user cannot know beforehand. An existing snapshot is named by another line, and the rest is no surprise. */
const KEPT_WHY: { readonly [reason in KeptReason]?: string } = {
  large_device: "the device is larger than 256 GiB",
  no_nbd_server: "the daemon serves no NBD",
  not_remembered: "the export's snapshot cannot be recorded",
};

function planReporter({ json, print, printJson }: Context): (plan: ExportPlan) => void {
  return (plan) => {
    if (json) return printJson({ event: "begun", ...plan });
    if (plan.reason !== null) print(`starts a full one: ${plan.reason}\n`);
    const why = plan.kept === null ? undefined : KEPT_WHY[plan.kept];
    if (why !== undefined) print(`old data is not freed before the end: ${why}\n`);
  };
}

function reportDone(
  { json, print, printJson }: Context,
  done: Manifest | RawExport | StreamExport | Qcow2Export,
): void {
  const { kind, device, changes_number, read_bytes, generation_id, taken_at, capacity_bytes } =
    done;
  const point = "id" in done ? { id: done.id, stored_bytes: done.stored_bytes } : undefined;
  const file = "path" in done ? { path: done.path } : undefined;
  const stream = "sent_bytes" in done ? { sent_bytes: done.sent_bytes } : undefined;
  if (json) {
    const state = { kind, device, capacity_bytes, generation_id, changes_number, taken_at };
    printJson({ event: "done", ...point, ...state, read_bytes, ...stream, ...file });
    return;
  }
  const stored = point && `, ${formatBytes(point.stored_bytes, false)} stored as ${point.id}`;
  const sent = stream && `, ${formatBytes(stream.sent_bytes, false)} sent`;
  const into = file && `, into ${file.path}`;
  const read = `${formatBytes(read_bytes, false)} read${stored ?? ""}${sent ?? ""}${into ?? ""}`;
  print(`${kind}: ${device} as of snapshot ${changes_number}, ${read}\n`);
}

async function optionsOf(context: Context, given: Given): Promise<ExportOptions> {
  const { client, warn } = context;
  const stores = given.many("file");
  const limit = given.one("limit");
  const open = given.has("allocated-only")
    ? { open: (await import("@blksnap/backup")).openAllocated }
    : {};
  return {
    client,
    ...open,
    frees: !given.has("no-free"),
    device: parsePath(given.need("device"), "device"),
    wanted: wantedOf(given),
    stores: parseStores(stores.length === 0 ? [STORE_DEFAULT] : stores),
    limitBytes: limit === undefined ? LIMIT_DEFAULT_BYTES : parseLimit(limit),
    onPlan: planReporter(context),
    onProgress: progressReporter(context, "export"),
    onNote: warn,
    hostFolder: dirname(client.socketPath),
  };
}

/** Options for some kinds of targets only. */
function checkForm(given: Given): void {
  const [form, other] = ["qcow2", "raw"].filter((one) => given.has(one));
  if (form !== undefined && given.need("to") === STANDARD_STREAM) {
    throw usageError(`${form}: a stream has its own format`, "USAGE", `Omit --${form}`);
  }
  if (other !== undefined) {
    throw usageError("qcow2: it excludes --raw", "USAGE", "Give --qcow2 or --raw");
  }
  if (given.has("record") && form !== "raw" && given.need("to") !== STANDARD_STREAM) {
    throw usageError("record: a folder of backups has none", "USAGE", "Give --raw with it");
  }
}

async function sendStream(
  context: Context,
  options: ExportOptions & { readonly record?: string | undefined },
): Promise<void> {
  const { outFd, isOutTerminal, leaveOutput } = context.streams;
  if (isOutTerminal) {
    const hint = "Send it to a file or program: blksnapctl export ... --to - | ...";
    throw usageError("to: standard output is a terminal", "USAGE", hint);
  }
  const { checkOpenApart, descriptorSink, exportStream } = await import("@blksnap/backup");
  const signal = context.untilInterrupted();
  await checkOpenApart(context.client, outFd, options.device);
  const sink = descriptorSink(outFd);
  try {
    reportDone(context, await exportStream({ ...options, signal, sink }));
  } finally {
    if (sink.isWriting) leaveOutput();
  }
}

async function exportToBucket(
  context: Context,
  given: Given,
  options: ExportOptions,
): Promise<void> {
  const form = ["qcow2", "raw"].find((one) => given.has(one));
  if (form !== undefined) {
    throw usageError(`${form}: a bucket takes only points in time`, "USAGE", `Omit --${form}`);
  }
  const signal = context.untilInterrupted();
  const store = await openBackups(context, given, "to", true, signal);
  const { exportToStore } = await import("@blksnap/backup");
  reportDone(context, await exportToStore(store, { ...options, signal }));
}

export async function exportDevice(context: Context, given: Given): Promise<void> {
  const { client } = context;
  checkForm(given);
  checkBucketOptions(given, given.need("to"));
  const options = await optionsOf(context, given);
  const record = given.one("record");
  const recordPath = record === undefined ? undefined : parsePath(record, "record");
  if (given.need("to") === STANDARD_STREAM) {
    return await sendStream(context, { ...options, record: recordPath });
  }
  if (isBucket(given.need("to"))) return await exportToBucket(context, given, options);
  const target = parsePath(given.need("to"), "to");
  const { checkApart, checkUntracked, exportQcow2, exportRaw, exportToStore, targetKind } =
    await import("@blksnap/backup");
  const kind = await targetKind(target);
  if (!given.has("raw") && (kind === "file" || kind === "block")) {
    const hint = "Name a folder, or give --raw to make it a copy of the device";
    throw usageError(`to: ${quoted(target)} is not a folder`, "USAGE", hint);
  }
  const signal = context.untilInterrupted();
  // Runs beside the other check, whose failure is reported first.
  const checked = given.has("raw") ? checkUntracked(client, target) : Promise.resolve();
  checked.catch(() => undefined);
  await checkApart(client, target, options.device);
  await checked;
  if (given.has("raw")) {
    const raw = { ...options, signal, target, record: recordPath };
    reportDone(context, await exportRaw(raw));
    return;
  }
  if (given.has("qcow2")) {
    reportDone(context, await exportQcow2({ ...options, signal, folder: target }));
    return;
  }
  const store = await openBackups(context, given, "to", true);
  reportDone(context, await exportToStore(store, { ...options, signal }));
}
