/** The life of a snapshot: snapshot_create, _add, _take, _destroy, _info and _collect. */
import { quoted } from "../argv.js";
import { usageError } from "../usage-error.js";
import { parseId, parseLimit, parseOverflow, parsePath, parseStore } from "../values.js";
import type { Context, Given } from "../verb.js";

export async function create(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const policy = given.one("on-overflow");
  const created = await client.snapshotCreate({
    devices: given.many("device").map((path) => parsePath(path, "device")),
    stores: given.many("file").map(parseStore),
    limitBytes: parseLimit(given.need("limit")),
    ...(policy === undefined ? {} : { onOverflow: parseOverflow(policy) }),
    ...(given.has("persistent") ? { persistent: true } : {}),
  });
  if (json) return printJson(created);
  print(`${created.id}\n`);
}

export async function add({ client, json, printJson }: Context, given: Given): Promise<void> {
  const id = parseId(given.need("id"));
  const added = await client.snapshotAdd(id, parsePath(given.need("device"), "device"));
  if (json) printJson(added);
}

export async function take({ client, json, printJson }: Context, given: Given): Promise<void> {
  const taken = await client.snapshotTake(parseId(given.need("id")));
  if (json) printJson(taken);
}

export async function destroy({ client, json, printJson }: Context, given: Given): Promise<void> {
  const destroyed = await client.snapshotDestroy(parseId(given.need("id")));
  if (json) printJson(destroyed);
}

const FIELDS = ["image", "front", "error_code"] as const;

function fieldOf(text: string): (typeof FIELDS)[number] {
  const field = FIELDS.find((name) => name === text);
  if (field !== undefined) return field;
  throw usageError(`field: ${quoted(text)} is unknown`, "USAGE", `Give ${FIELDS.join(", ")}`);
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
  // The blank after each uuid and the empty line at the end are those of the module's tool.
  print(`${snapshots.map(({ id }) => `${id} \n`).join("")}\n`);
}
