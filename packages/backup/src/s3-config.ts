/**
 * Location and credentials of a bucket, from the same sources as in other programs: environment variables, or the
 * files of the AWS command line.
 */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { BackupError } from "./errors.js";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface S3Place {
  /** Where the server is, when not at Amazon: `https://HOST[:PORT]`. Default: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or the profile's. */
  readonly endpoint?: string | undefined;
  /** Default: AWS_REGION, AWS_DEFAULT_REGION, or the profile's; else us-east-1. */
  readonly region?: string | undefined;
  /** Default: that of this process. */
  readonly environment?: Environment | undefined;
}

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface S3Config {
  /** Of the bucket, without a slash at its end. */
  readonly url: string;
  readonly bucket: string;
  /** Prefix of each key: empty, or with a slash at its end. */
  readonly prefix: string;
  readonly region: string;
  readonly credentials: S3Credentials;
}

const SCHEME = "s3://";
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,253}$/;
/** Characters that every server and program accepts; a part of only dots would count as a parent folder. */
const PREFIX_PART = /^(?!\.+$)[A-Za-z0-9!_.*'()=@:+-]+$/;
const PREFIX_MAX_BYTES = 512;
const REGION = /^[A-Za-z0-9-]{1,64}$/;
const REGION_DEFAULT = "us-east-1";
/** Characters of a header. Errors of fetch would repeat an invalid value. */
const CREDENTIAL = /^[\x21-\x7e]+$/;
const LOCAL = /^(localhost|127(\.\d+){3}|\[::1\])$/;

type Profile = ReadonlyMap<string, string>;

function isS3Url(text: string): boolean {
  return text.slice(0, SCHEME.length).toLowerCase() === SCHEME;
}

function wrong(why: string, hint: string): BackupError {
  return new BackupError("USAGE", why, { hint });
}

/** Names in a URL. Errors never print the URL, which may contain a secret. */
function placeOf(url: string): { readonly bucket: string; readonly prefix: string } {
  const hint =
    "Give s3://BUCKET/PREFIX; credentials come from the environment or ~/.aws/credentials";
  const [bucket = "", ...parts] = url.slice(SCHEME.length).replace(/\/+$/, "").split("/");
  if (!isS3Url(url) || !BUCKET.test(bucket))
    throw wrong("the URL of the object store names no bucket", hint);
  const prefix = parts.map((part) => `${part}/`).join("");
  if (parts.every((part) => PREFIX_PART.test(part)) && prefix.length <= PREFIX_MAX_BYTES) {
    return { bucket, prefix };
  }
  const why = `a prefix in the bucket ${bucket} has letters, digits and !_.*'()=@:+- between single slashes`;
  throw wrong(why, hint);
}

function readIni(path: string, section: string): Profile {
  let text = "";
  try {
    text = readFileSync(path, "utf8");
  } catch {
    // Counts as empty: missing values are reported later.
  }
  const found = new Map<string, string>();
  let isWanted = false;
  for (const line of text.split("\n")) {
    const title = /^\s*\[\s*([^\]]*?)\s*\]/.exec(line)?.[1];
    if (title !== undefined) isWanted = title === section;
    // Indented lines belong to a setting of other services.
    const [, name, value] = /^([A-Za-z0-9_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (isWanted && name !== undefined && value !== undefined) found.set(name, value);
  }
  return found;
}

interface Profiles {
  readonly name: string;
  readonly credentials: Profile;
  readonly settings: Profile;
}

function profilesOf(environment: Environment): Profiles {
  const folder = join(environment["HOME"] || homedir(), ".aws");
  const name = environment["AWS_PROFILE"] || "default";
  const secrets = environment["AWS_SHARED_CREDENTIALS_FILE"] || join(folder, "credentials");
  const config = environment["AWS_CONFIG_FILE"] || join(folder, "config");
  const settings = readIni(config, name === "default" ? name : `profile ${name}`);
  return { name, credentials: readIni(secrets, name), settings };
}

function credentialsOf(environment: Environment, profiles: Profiles): S3Credentials {
  const keyId = environment["AWS_ACCESS_KEY_ID"];
  const isProfile = !keyId;
  const ofProfile = (name: string): string | undefined =>
    profiles.credentials.get(name) ?? profiles.settings.get(name);
  const [id, secret, token] = isProfile
    ? ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"].map(ofProfile)
    : [keyId, environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_SESSION_TOKEN"]];
  const where = isProfile ? `profile ${profiles.name}` : "environment";
  if (!id || !secret) {
    const hint =
      "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have them in ~/.aws/credentials and name their AWS_PROFILE";
    throw wrong(`the ${where} has no credentials for the object store`, hint);
  }
  if (![id, secret, token || "none"].every((one) => CREDENTIAL.test(one))) {
    const why = `the credentials of the ${where} contain blanks or other invalid characters`;
    throw wrong(why, "Copy them again; they are not shown here");
  }
  return { accessKeyId: id, secretAccessKey: secret, ...(token ? { sessionToken: token } : {}) };
}

function endpointUrl(text: string): URL {
  const hint =
    "Give https://HOST[:PORT]; http:// is for this host, or where AWS_ALLOW_HTTP=true is set";
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw wrong("endpoint: it is not a URL", hint);
  }
  const isPlain = url.pathname === "/" && url.search === "" && url.hash === "";
  if (url.username !== "" || url.password !== "" || !isPlain) {
    throw wrong("endpoint: it has more than host and port", hint);
  }
  if (!["http:", "https:"].includes(url.protocol))
    throw wrong("endpoint: it is neither http:// nor https://", hint);
  return url;
}

/** @throws BackupError USAGE */
export function s3Config(url: string, place: S3Place = {}): S3Config {
  const { environment = process.env } = place;
  const { bucket, prefix } = placeOf(url);
  const profiles = profilesOf(environment);
  const { settings } = profiles;
  const region =
    place.region ||
    environment["AWS_REGION"] ||
    environment["AWS_DEFAULT_REGION"] ||
    settings.get("region") ||
    REGION_DEFAULT;
  if (!REGION.test(region))
    throw wrong("region: it is not a region name", "Give one such as eu-central-1");
  const endpoint =
    place.endpoint ||
    environment["AWS_ENDPOINT_URL_S3"] ||
    environment["AWS_ENDPOINT_URL"] ||
    settings.get("endpoint_url");
  const credentials = credentialsOf(environment, profiles);
  const config = { bucket, prefix, region, credentials };
  if (endpoint) {
    const at = endpointUrl(endpoint);
    if (
      at.protocol === "http:" &&
      !LOCAL.test(at.hostname) &&
      environment["AWS_ALLOW_HTTP"] !== "true"
    ) {
      const hint =
        "Give https://; or set AWS_ALLOW_HTTP=true, but then anyone on the network path can read the backups";
      throw wrong(`endpoint: ${at.host} is not encrypted`, hint);
    }
    return { url: `${at.origin}/${bucket}`, ...config };
  }
  // A dot would make a host name that the server's certificate does not cover.
  const host = `s3.${region}.amazonaws.com`;
  const isPath = bucket.includes(".") || bucket !== bucket.toLowerCase();
  return { url: isPath ? `https://${host}/${bucket}` : `https://${bucket}.${host}`, ...config };
}
