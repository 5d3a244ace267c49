/** A bucket of an object store, or what is in it below a prefix, as the place of a store. */
import { createHash } from "node:crypto";
import { targetError } from "./errors.js";
import { type Content, wholeOf } from "./files.js";
import type { ObjectEntry, Objects } from "./objects.js";
import { type S3Answer, S3Client, type S3Limits, type S3Request } from "./s3-client.js";
import { type S3Config, type S3Place, s3Config } from "./s3-config.js";
import { elementsIn, textIn } from "./s3-xml.js";

export interface S3Options extends S3Place {
  /** After an abort, requests are not retried, and have only a short time. */
  readonly signal?: AbortSignal | undefined;
  /** Called with failures that continue while their requests are retried. */
  readonly onNote?: ((text: string) => void) | undefined;
  /** For tests. */
  readonly limits?: Partial<S3Limits> | undefined;
}

/** Enough for high bandwidth with latency: each has a chunk or two in memory. */
const REQUESTS_IN_FLIGHT = 16;

class S3Objects implements Objects {
  readonly path: string;
  readonly depth = REQUESTS_IN_FLIGHT;
  readonly isHashed = true;
  readonly #client: S3Client;
  readonly #prefix: string;
  readonly #bucket: string;

  constructor(config: S3Config, client: S3Client) {
    this.#client = client;
    this.#prefix = config.prefix;
    this.#bucket = `s3://${config.bucket}`;
    this.path = `${this.#bucket}/${config.prefix}`.replace(/\/$/, "");
  }

  pathOf(key: string): string {
    return `${this.#bucket}/${this.#prefix}${key}`;
  }

  async look(key: string): Promise<ObjectEntry | undefined> {
    const { status, headers } = await this.#send("look at", key, { method: "HEAD" });
    if (status === 404) return undefined;
    const sizeBytes = Number(headers.get("content-length") ?? 0);
    return { key, sizeBytes, modifiedMs: Date.parse(headers.get("last-modified") ?? "") };
  }

  async get(key: string): Promise<Buffer | undefined> {
    const { status, content } = await this.#send("read", key, { method: "GET" });
    return status === 404 ? undefined : content;
  }

  async put(key: string, content: Content, known?: string): Promise<void> {
    const data = wholeOf(content);
    const sha256 = known ?? createHash("sha256").update(data).digest("hex");
    await this.#send("write", key, { method: "PUT", data, sha256 });
  }

  async *list(prefix: string): AsyncGenerator<ObjectEntry> {
    const whole = this.#prefix + prefix;
    for (let token: string | undefined = ""; token !== undefined; ) {
      const query: Record<string, string> = {
        ...{ "list-type": "2", prefix: whole, "max-keys": "1000" },
        ...(token === "" ? {} : { "continuation-token": token }),
      };
      const request = { method: "GET", key: "", query } as const;
      const answer = await this.#client.send(request, `list ${this.pathOf(prefix)}`);
      const xml = this.#listOf(answer, prefix);
      yield* elementsIn(xml, "Contents").map((element) => this.#entryOf(element));
      const isMore = textIn(xml, "IsTruncated") === "true";
      token = isMore ? textIn(xml, "NextContinuationToken") : undefined;
      if (isMore && !token) throw this.#noList(prefix, "it is cut off");
    }
  }

  async remove(key: string): Promise<void> {
    await this.#send("remove", key, { method: "DELETE" });
  }

  /** Objects for which the server has confirmed the write are durable. */
  sync(): Promise<void> {
    return Promise.resolve();
  }

  /** Uploads are atomic. */
  removeUnfinished(): Promise<void> {
    return Promise.resolve();
  }

  #send(verb: string, key: string, request: Omit<S3Request, "key">): Promise<S3Answer> {
    return this.#client.send(
      { ...request, key: this.#prefix + key },
      `${verb} ${this.pathOf(key)}`,
    );
  }

  /** An invalid response must not pass for an empty store, because gc trusts it. */
  #listOf({ status, content }: S3Answer, prefix: string): string {
    const xml = content.toString();
    const isList =
      status === 200 &&
      xml.includes("<ListBucketResult") &&
      xml.trimEnd().endsWith("</ListBucketResult>");
    if (!isList) throw this.#noList(prefix, "the answer is not a list");
    return xml;
  }

  #noList(prefix: string, why: string): Error {
    return targetError("list", this.pathOf(prefix), new Error(why));
  }

  #entryOf(element: string): ObjectEntry {
    const key = textIn(element, "Key") ?? "";
    return {
      key: key.slice(this.#prefix.length),
      sizeBytes: Number(textIn(element, "Size") ?? 0),
      modifiedMs: Date.parse(textIn(element, "LastModified") ?? ""),
    };
  }
}

/**
 * The place for `BackupStore.open`: a bucket of Amazon S3, or of any server that speaks its protocol.
 * @param url `s3://BUCKET/PREFIX`; credentials are those of the environment, or of `~/.aws/credentials`
 * @throws BackupError USAGE
 */
export function openS3(url: string, options: S3Options = {}): Objects {
  const config = s3Config(url, options);
  const { limits, signal, onNote } = options;
  return new S3Objects(config, new S3Client(config, limits, signal, onNote));
}
