/** Verbs of snapshots: snapshot_create, _add, _take, _destroy, _info and _collect. */
import type { SnapshotCreateProgress, SnapshotCreateResponse } from "@blksnap/api";
import { quoted } from "../argv.js";
import { SNAPSHOT_FIELDS } from "../fields.js";
import { freezeText } from "../freeze-text.js";
import { resolveId } from "../resolve-id.js";
import { usageError } from "../usage-error.js";
import { parseLimit, parseOverflow, parsePath, parseStores } from "../values.js";
import type { Context, Given } from "../verb.js";

const MEBIBYTE = 2 ** 20;

function progressText(
  { store, allocated_bytes, target_bytes }: SnapshotCreateProgress,
  stores: number,
): string {
  const allocated = Math.floor(allocated_bytes / MEBIBYTE);
  const figures = `${allocated} of ${Math.ceil(target_bytes / MEBIBYTE)} MiB`;
  return `creating: ${figures}${stores === 1 ? ` of ${store} allocated` : ` allocated, now of ${store}`}`;
}

function readOnlyImages(given: Given): { readOnlyImages?: boolean } {
  const isReadOnly = given.has("read-only-images");
  const isWritable = given.has("writable-images");
  if (isReadOnly && isWritable) {
    throw usageError("--read-only-images and --writable-images exclude each other");
  }
  return isReadOnly || isWritable ? { readOnlyImages: isReadOnly } : {};
}

export async function create(
  { client, json, deliver, progress, warn }: Context,
  given: Given,
): Promise<void> {
  const policy = given.one("on-overflow");
  const parameters = {
    devices: given.many("device").map((path) => parsePath(path, "device")),
    stores: parseStores(given.many("file")),
    limitBytes: parseLimit(given.need("limit")),
    ...(policy === undefined ? {} : { onOverflow: parseOverflow(policy) }),
    ...(given.has("persistent") ? { persistent: true } : {}),
    ...readOnlyImages(given),
  };
  const created = await client.snapshotCreate(parameters, {
    onProgress: (told) => progress(progressText(told, parameters.stores.length)),
  });
  try {
    await deliver(json ? `${JSON.stringify(created)}\n` : `${created.id}\n`);
  } catch (error) {
    // The caller does not know its id, so it would stay forever.
    await client.snapshotDestroy(created.id);
    for (const device of attachedBy(created)) {
      await client.detach(device).catch(({ message }: Error) => {
        warn(`${device} was attached for this, and stays attached: ${message}`);
      });
    }
    throw error;
  }
}

/** A daemon of an earlier version does not report it. */
function attachedBy({ attached }: Partial<SnapshotCreateResponse>): readonly string[] {
  return attached ?? [];
}

export async function add({ client, json, printJson }: Context, given: Given): Promise<void> {
  const id = await resolveId(client, given.need("id"));
  const added = await client.snapshotAdd(id, parsePath(given.need("device"), "device"));
  if (json) printJson(added);
}

export async function take(
  { client, json, print, printJson, warn }: Context,
  given: Given,
): Promise<void> {
  const id = await resolveId(client, given.need("id"));
  const taken = await client.snapshotTake(id, { requireFreeze: given.has("require-freeze") });
  if (json) return printJson(taken);
  print(taken.images.map(({ device, image }) => `device=${device}\nimage=${image}\n`).join(""));
  for (const one of taken.file_systems) if (one.state !== "frozen") warn(freezeText(one));
}

export async function destroy(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const destroyed = await client.snapshotDestroy(await resolveId(client, given.need("id")));
  if (json) return printJson(destroyed);
  print("Destroyed successfully\n");
}

function fieldOf(text: string): (typeof SNAPSHOT_FIELDS)[number] {
  const field = SNAPSHOT_FIELDS.find((name) => name === text);
  if (field !== undefined) return field;
  const hint = `Give ${SNAPSHOT_FIELDS.join(", ")}`;
  throw usageError(`field: ${quoted(text)} is unknown`, "USAGE", hint);
}

export async function info(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const wanted = given.one("field");
  const field = wanted === undefined ? undefined : fieldOf(wanted);
  const found = await client.snapshotInfo(parsePath(given.need("device"), "device"));
  if (field === undefined) {
    if (json) return printJson(found);
    return print(`error_code=${found.error_code}\nimage=${found.image ?? ""}\n`);
  }
  if (json) return printJson({ [field]: found[field] });
  print(`${found[field] ?? ""}\n`);
}

export async function collect({ client, json, print, printJson }: Context): Promise<void> {
  const snapshots = await client.snapshotCollect();
  if (json) return printJson({ snapshots });
  // The module's tool prints a blank after each uuid, and an empty line at the end.
  print(`${snapshots.map(({ id }) => `${id} \n`).join("")}\n`);
}
