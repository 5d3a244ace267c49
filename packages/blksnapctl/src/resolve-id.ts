/** Finds a snapshot by the beginning of its uuid, as status shows it. */
import { type BlksnapClient, BlksnapClientError } from "@blksnap/client";
import { quoted } from "./argv.js";
import { usageError } from "./usage-error.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const PREFIX_LENGTH_MIN = 4;
const UUID_PATTERN = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

/** Whether the text can be the beginning of a uuid. */
function isPrefix(text: string): boolean {
  if (text.length < PREFIX_LENGTH_MIN || text.length > UUID_PATTERN.length) return false;
  return [...text].every((letter, at) =>
    UUID_PATTERN[at] === "-" ? letter === "-" : /[0-9a-f]/i.test(letter),
  );
}

/**
 * The whole uuid of a snapshot, in lower case.
 * @throws BlksnapClientError ID_INVALID, SNAPSHOT_NOT_FOUND
 */
export async function resolveId(client: BlksnapClient, text: string): Promise<string> {
  const wanted = text.toLowerCase();
  if (UUID.test(text)) return wanted;
  if (!isPrefix(text)) {
    const hint = `Give the uuid that snapshot_create printed, or its first ${PREFIX_LENGTH_MIN} digits or more`;
    throw usageError(`id: ${quoted(text)} is not a uuid`, "ID_INVALID", hint);
  }
  const ids = (await client.snapshotCollect()).map(({ id }) => id);
  const found = ids.filter((id) => id.startsWith(wanted));
  if (found.length === 1) return found[0]!;
  if (found.length === 0) {
    throw new BlksnapClientError("SNAPSHOT_NOT_FOUND", `no snapshot's uuid begins with ${wanted}`);
  }
  const hint = `Give one of ${found.join(", ")}`;
  throw usageError(`id: '${wanted}' matches ${found.length} snapshots`, "ID_INVALID", hint);
}
