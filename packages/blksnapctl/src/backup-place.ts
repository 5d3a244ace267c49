/** The place of backups: a folder, or a bucket of an object store. */
import type { BackupStore } from "@blksnap/backup";
import { usageError } from "./usage-error.js";
import { parsePath } from "./values.js";
import type { Context, Given, OptionSpecs } from "./verb.js";

export const storeOptions: OptionSpecs = {
  endpoint: {
    describe: "for s3://: the server's URL, unless it is Amazon's; default: $AWS_ENDPOINT_URL_S3",
    value: "URL",
  },
  region: { describe: "for s3://: the region; default: $AWS_REGION", value: "NAME" },
};

/** A prefix like this is never meant as a folder's name. */
const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;
const BUCKET = /^s3:\/\//i;

export function isBucket(text: string): boolean {
  return BUCKET.test(text);
}

/** Whether it is a path on this machine. */
export function isLocal(text: string): boolean {
  return !SCHEME.test(text);
}

/** Fails if an option for buckets is given with another place. */
export function checkBucketOptions(given: Given, place: string): void {
  if (isBucket(place)) return;
  for (const option of Object.keys(storeOptions)) {
    if (!given.has(option)) continue;
    throw usageError(`${option}: it is only for s3://`, "USAGE", `Omit --${option}`);
  }
}

/**
 * Opens the store that an option names.
 * @param isMade creates it if it does not exist
 * @param signal ends waits for the bucket's server
 */
export async function openBackups(
  { warn }: Context,
  given: Given,
  option: "from" | "to",
  isMade: boolean,
  signal?: AbortSignal,
): Promise<BackupStore> {
  const { BackupStore, openS3 } = await import("@blksnap/backup");
  const text = given.need(option);
  checkBucketOptions(given, text);
  const scheme = SCHEME.exec(text)?.[1];
  if (scheme !== undefined && !isBucket(text)) {
    // Never print the rest: it may contain a secret.
    const hint =
      "Give a folder, or s3://BUCKET/PREFIX with the --endpoint of a server that supports S3";
    throw usageError(`${option}: ${scheme}:// cannot hold backups`, "USAGE", hint);
  }
  const [endpoint, region] = [given.one("endpoint"), given.one("region")];
  const place = isBucket(text)
    ? openS3(text, { endpoint, region, signal, onNote: warn })
    : parsePath(text, option);
  return await (isMade ? BackupStore.openOrCreate(place) : BackupStore.open(place));
}
