/** Requests to an object store: signed, time-limited, and retried where that helps. */
import { setTimeout as pause } from "node:timers/promises";
import { messageOf } from "@blksnap/errors";
import { BackupError } from "./errors.js";
import { msSince, now } from "./moment.js";
import type { S3Config } from "./s3-config.js";
import { encodedPart, encodedQuery, signed } from "./s3-signature.js";
import { textIn } from "./s3-xml.js";

export interface S3Limits {
  /** Attempts per request. */
  readonly attempts: number;
  /** Pause before the second attempt; it doubles with each. */
  readonly delayMs: number;
  /** Time limit of a response, without its content. */
  readonly answerMs: number;
  /** The same after an interruption: a user waits for the end. */
  readonly interruptedMs: number;
  /** A slower connection counts as broken. */
  readonly bytesPerSecond: number;
  /** Longest response: more than any manifest. */
  readonly contentMaxBytes: number;
}

const INTERRUPTED_MS = 5_000;
/** About a minute of waiting in total, plus the time of the requests. */
const LIMITS: S3Limits = {
  attempts: 9,
  delayMs: 250,
  answerMs: 60_000,
  interruptedMs: INTERRUPTED_MS,
  bytesPerSecond: 65_536,
  contentMaxBytes: 2 ** 29,
};
const DELAY_MAX_MS = 20_000;
/**
 * No retries after this time, by either clock: a process that slept may have lost its lock of the store, and objects
 * that it wanted to remove may be needed.
 */
const SEND_MAX_MS = 10 * 60_000;
/** A server that requests a slower pace gets over it within the first retries. */
const REPORTED_FROM = 3;
const REPORT_AGAIN_MS = 10_000;
const EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

export interface S3Request {
  readonly method: "GET" | "HEAD" | "PUT" | "DELETE";
  /** Empty for the bucket. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly data?: Uint8Array;
  /** SHA-256 of the data, in hexadecimal. */
  readonly sha256?: string;
}

export interface S3Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly content: Buffer;
}

/** A failure, and whether a retry may succeed. */
interface Failure {
  readonly text: string;
  readonly code: string;
  /** Advice if the code has none. */
  readonly hint?: string;
  readonly isPassing: boolean;
  readonly waitMs: number;
  readonly cause?: unknown;
}

const PASSING_STATUS: readonly number[] = [408, 409, 425, 429, 500, 502, 503, 504];
const PASSING_CODES: readonly string[] = ["RequestTimeout", "SlowDown", "InternalError"];
/** Unknown host name, wrong certificate, or a server without TLS: retrying does not help. */
const LASTING_CAUSES = /^ENOTFOUND$|^EPROTO$|_SSL_|CERT|SELF_SIGNED|UNABLE_TO_VERIFY/;
/** Failures of fetch itself, which have no codes. */
const LASTING_TEXTS = /^bad port$/;
const FULL_CODES: readonly string[] = [
  ...["QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"],
  "InsufficientStorage",
];
const HINTS: Readonly<Record<string, string>> = {
  NoSuchBucket: "Create the bucket first, or correct its name",
  AccessDenied: "Allow its user to get, put, delete and list objects there",
  InvalidAccessKeyId: "Check AWS_ACCESS_KEY_ID, or the profile's",
  SignatureDoesNotMatch: "Check AWS_SECRET_ACCESS_KEY, or the profile's",
  ExpiredToken: "Renew the credentials; what was already written is reused",
  InvalidToken: "Check AWS_SESSION_TOKEN, or the profile's",
  RequestTimeTooSkewed: "Correct the clock of this host",
  TemporaryRedirect: "Give the --region of the bucket",
  PermanentRedirect: "Give the --region of the bucket",
  AuthorizationHeaderMalformed: "Give the --region of the bucket",
};
/** Responses to HEAD have no content with a code. */
const REFUSED_HINT = "Check what its user may do there, and whether the credentials have expired";
const HINT = "Check --endpoint, and whether the server runs; what was already written is reused";

/** Text of a server, truncated and without control characters. */
function plain(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, " ").slice(0, 200);
}

function failureOf(answer: S3Answer): Failure {
  const xml = answer.content.toString();
  const code = plain(textIn(xml, "Code") ?? "");
  const message = plain(textIn(xml, "Message") ?? "");
  const said = [code, message].filter((one) => one !== "").join(": ");
  const waitS = Number(answer.headers.get("retry-after") ?? 0);
  return {
    text: `the server answers ${answer.status}${said === "" ? "" : ` ${said}`}`,
    code: answer.status === 507 ? "InsufficientStorage" : code,
    ...(answer.status === 401 || answer.status === 403 ? { hint: REFUSED_HINT } : {}),
    isPassing: PASSING_STATUS.includes(answer.status) || PASSING_CODES.includes(code),
    waitMs: Number.isFinite(waitS) ? Math.min(waitS * 1000, DELAY_MAX_MS) : 0,
  };
}

/** Reads all content with a limit: a response without a length may be endless. */
async function received({ body }: Response, mostBytes: number): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of (body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += part.length;
    if (bytes > mostBytes) throw new Error(`the server sends more than ${mostBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts, bytes);
}

/** The cause of a failed fetch, whose own message says nothing. */
function brokenBy(error: unknown): Failure {
  const cause = (error as Error).cause ?? error;
  const isLate = (cause as Error).name === "TimeoutError";
  const text = isLate ? "the server does not answer in time" : plain(messageOf(cause));
  const code = String((cause as { code?: unknown }).code ?? "");
  const isPassing = !LASTING_CAUSES.test(code) && !LASTING_TEXTS.test(text);
  return { text, code: "", isPassing, waitMs: 0, cause };
}

/**
 * Whether the object does not exist. Another 404 is a page of a proxy, or of a server that is no object store, and
 * proves nothing; a response to HEAD has only the number.
 */
function isMissing({ status, content }: S3Answer, method: S3Request["method"]): boolean {
  if (status !== 404) return false;
  return method === "HEAD" || textIn(content.toString(), "Code") === "NoSuchKey";
}

/** Aborts when its time is over; each begin() restarts that. */
class TimeLimit {
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  begin(ms: number): void {
    clearTimeout(this.#timer);
    const late = new DOMException("the time limit has passed", "TimeoutError");
    this.#timer = setTimeout(() => this.#controller.abort(late), ms);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

export class S3Client {
  readonly #config: S3Config;
  readonly #limits: S3Limits;
  readonly #signal: AbortSignal | undefined;
  readonly #onNote: ((text: string) => void) | undefined;
  /** Abort controllers of the pending requests. */
  readonly #underWay = new Set<TimeLimit>();

  #reportedMs = Number.NEGATIVE_INFINITY;

  constructor(
    config: S3Config,
    limits: Partial<S3Limits> = {},
    signal?: AbortSignal,
    onNote?: (text: string) => void,
  ) {
    this.#config = config;
    this.#onNote = onNote;
    this.#limits = { ...LIMITS, ...limits };
    this.#signal = signal;
    signal?.addEventListener("abort", () => {
      for (const limit of this.#underWay) limit.begin(this.#limits.interruptedMs);
    });
  }

  /**
   * A missing object is a valid response, too: 404.
   * @param what for messages: "write s3://bucket/key"
   * @throws BackupError TARGET_FULL, TARGET_FAILED
   */
  async send(request: S3Request, what: string): Promise<S3Answer> {
    const begun = now();
    for (let attempt = 1; ; attempt++) {
      const result = await this.#attempt(request);
      if ("status" in result) return result;
      const isLast = attempt >= this.#limits.attempts || this.#signal?.aborted === true;
      if (!result.isPassing || isLast) throw failed(result, what, attempt);
      this.#report(result, what, attempt);
      await this.#pause(attempt, result.waitMs);
      if (msSince(begun) > SEND_MAX_MS) throw failed(result, what, attempt);
    }
  }

  /** Reports a failure that is retried: once for all concurrent requests. */
  #report({ text }: Failure, what: string, attempt: number): void {
    const nowMs = performance.now();
    if (attempt < REPORTED_FROM || nowMs - this.#reportedMs < REPORT_AGAIN_MS) return;
    this.#reportedMs = nowMs;
    this.#onNote?.(`can't ${what} yet: ${text}; retrying`);
  }

  async #attempt(request: S3Request): Promise<S3Answer | Failure> {
    try {
      const answer = await this.#exchange(request);
      const isDone = answer.status >= 200 && answer.status < 300;
      return isDone || isMissing(answer, request.method) ? answer : failureOf(answer);
    } catch (error) {
      return brokenBy(error);
    }
  }

  async #exchange({ method, key, query, data, sha256 }: S3Request): Promise<S3Answer> {
    const { url: base, region, credentials } = this.#config;
    const path = key.split("/").map(encodedPart).join("/");
    const words = query === undefined ? "" : `?${encodedQuery(query)}`;
    const url = new URL(`${base}/${path}${words}`);
    const headers: Record<string, string> = { "x-amz-content-sha256": sha256 ?? EMPTY_HASH };
    if (sha256 !== undefined) {
      // The server stores it, and verifies what it reads back.
      headers["x-amz-checksum-sha256"] = Buffer.from(sha256, "hex").toString("base64");
    }
    const limit = new TimeLimit();
    this.#underWay.add(limit);
    try {
      limit.begin(this.#limitMs(data?.length ?? 0));
      const response = await fetch(url, {
        method,
        headers: {
          ...signed({ method, url, headers }, credentials, region, new Date()),
          // Sent, so that lengths are checked. Not signed, because proxies set it again.
          "accept-encoding": "identity",
        },
        redirect: "manual",
        signal: limit.signal,
        ...(data === undefined ? {} : { body: data as Uint8Array<ArrayBuffer> }),
      });
      const content = await this.#contentOf(response, method, limit);
      return { status: response.status, headers: response.headers, content };
    } finally {
      this.#underWay.delete(limit);
      limit.end();
    }
  }

  async #contentOf(response: Response, method: string, limit: TimeLimit): Promise<Buffer> {
    const told = response.headers.get("content-length");
    const bytes = Number(told ?? 0);
    const { contentMaxBytes } = this.#limits;
    if (bytes > contentMaxBytes) throw new Error(`the server sends ${bytes} bytes`);
    limit.begin(this.#limitMs(bytes));
    const content = await received(response, contentMaxBytes);
    if (method !== "HEAD" && told !== null && content.length !== bytes) {
      throw new Error(`only ${content.length} of ${bytes} bytes arrived`);
    }
    return content;
  }

  /** Time limit for so many bytes in either direction. */
  #limitMs(bytes: number): number {
    const { answerMs, interruptedMs, bytesPerSecond } = this.#limits;
    if (this.#signal?.aborted === true) return interruptedMs;
    return answerMs + (bytes / bytesPerSecond) * 1000;
  }

  /** Growing, with random jitter, so that many hosts do not retry at once. */
  async #pause(attempt: number, waitMs: number): Promise<void> {
    const mostMs = Math.min(this.#limits.delayMs * 2 ** (attempt - 1), DELAY_MAX_MS);
    const ms = Math.max(waitMs, mostMs * (0.5 + Math.random() / 2));
    await pause(ms, undefined, { signal: this.#signal }).catch(() => undefined);
  }
}

function failed(
  { text, code, hint = HINT, cause }: Failure,
  what: string,
  attempts: number,
): BackupError {
  const times = attempts === 1 ? "" : `, ${attempts} times`;
  const why = `can't ${what}: ${text}${times}`;
  if (FULL_CODES.includes(code)) return new BackupError("TARGET_FULL", why, { cause });
  return new BackupError("TARGET_FAILED", why, { hint: HINTS[code] ?? hint, cause });
}
