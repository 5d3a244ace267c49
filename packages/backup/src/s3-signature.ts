/** Amazon's signature version 4 in the form of S3: all headers are signed, and the content by its SHA-256. */
import { createHash, createHmac } from "node:crypto";
import type { S3Credentials } from "./s3-config.js";

export interface Unsigned {
  readonly method: string;
  readonly url: URL;
  /** Lower-case names; includes `x-amz-content-sha256`. */
  readonly headers: Readonly<Record<string, string>>;
}

const ALGORITHM = "AWS4-HMAC-SHA256";

function hmac(key: string | Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** Like `encodeURIComponent`, but also encodes the characters that only the signature encodes. */
export function encodedPart(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** Sorted by name, in the form that is sent. */
export function encodedQuery(query: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(query).map(
    ([name, value]) => `${encodedPart(name)}=${encodedPart(value)}`,
  );
  return pairs.sort().join("&");
}

/**
 * The headers with those of the signature. Path and query of the URL are in the form of `encodedPart` and
 * `encodedQuery`.
 * @param now time of sending: the server accepts it for a quarter of an hour
 */
export function signed(
  { method, url, headers }: Unsigned,
  { accessKeyId, secretAccessKey, sessionToken }: S3Credentials,
  region: string,
  now: Date,
): Record<string, string> {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, "");
  const all: Record<string, string> = {
    ...headers,
    host: url.host,
    "x-amz-date": time,
    ...(sessionToken === undefined ? {} : { "x-amz-security-token": sessionToken }),
  };
  const names = Object.keys(all).sort();
  const list = names.join(";");
  const canonical = [
    ...[method, url.pathname, url.search.slice(1)],
    ...[names.map((name) => `${name}:${all[name]!.trim()}\n`).join(""), list],
    all["x-amz-content-sha256"],
  ].join("\n");
  const date = time.slice(0, 8);
  const scope = `${date}/${region}/s3/aws4_request`;
  const hash = createHash("sha256").update(canonical).digest("hex");
  const ofDay = hmac(`AWS4${secretAccessKey}`, date);
  const key = hmac(hmac(hmac(ofDay, region), "s3"), "aws4_request");
  const signature = hmac(key, [ALGORITHM, time, scope, hash].join("\n")).toString("hex");
  const { host: _, ...sent } = all;
  const credential = `Credential=${accessKeyId}/${scope}`;
  const authorization = `${ALGORITHM} ${credential}, SignedHeaders=${list}, Signature=${signature}`;
  return { ...sent, authorization };
}
