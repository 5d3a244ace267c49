/**
 * A server with as much of S3 as a store needs, in memory, which misbehaves as a test says. It trusts nothing: it
 * computes signatures and checksums itself.
 */
import { createHash, createHmac } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const ACCESS_KEY_ID = "AKIDEXAMPLE";
const SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const BUCKET = "backups";
const REGION = "eu-central-1";
/** Small, so that lists have several pages. */
const PAGE = 3;

/** What goes wrong with a request: an error, a connection broken before or after it is done, or half an answer. */
export type S3Fault =
  | { status: number; code: string }
  | "tear"
  | "lose"
  | "half"
  | "late"
  | "gather"
  | "never";

interface Answer {
  readonly status: number;
  readonly content: Buffer;
  readonly headers: Record<string, string>;
}

interface Stored {
  data: Buffer;
  modifiedMs: number;
}

function sha256(data: Uint8Array | string): string {
  return createHash("sha256").update(data).digest("hex");
}

function hmac(key: Uint8Array | string, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** As documented for signature version 4. */
function isSigned(request: IncomingMessage, url: URL): boolean {
  const form = /^AWS4-HMAC-SHA256 Credential=(.+?), ?SignedHeaders=(.+?), ?Signature=(.+)$/;
  const [, credential = "", names = "", signature] =
    form.exec(request.headers.authorization ?? "") ?? [];
  const [id, date = "", region = "", service = "", end = ""] = credential.split("/");
  if (id !== ACCESS_KEY_ID || region !== REGION || service !== "s3") return false;
  const header = (name: string): string => String(request.headers[name] ?? "").trim();
  const query = [...url.searchParams]
    .map(([name, value]) => `${encoded(name)}=${encoded(value)}`)
    .sort();
  const path = url.pathname
    .split("/")
    .map((part) => encoded(decodeURIComponent(part)))
    .join("/");
  const canonical = [
    ...[request.method, path, query.join("&")],
    ...[
      names
        .split(";")
        .map((name) => `${name}:${header(name)}\n`)
        .join(""),
      names,
    ],
    header("x-amz-content-sha256"),
  ].join("\n");
  const scope = [date, region, service, end].join("/");
  const text = ["AWS4-HMAC-SHA256", header("x-amz-date"), scope, sha256(canonical)].join("\n");
  const key = [region, service, end].reduce(
    hmac as (key: Buffer, text: string) => Buffer,
    hmac(`AWS4${SECRET}`, date),
  );
  return hmac(key, text).toString("hex") === signature;
}

export class FakeS3 {
  readonly objects: Map<string, Stored> = new Map();
  /** Each request, in order: "PUT points/...". */
  readonly log: string[] = [];
  /** Called for each request; undefined: no fault. */
  faultOf: (request: string) => S3Fault | undefined = () => undefined;
  readonly #server: Server;
  nowMs: () => number = Date.now;
  /** How many requests with the fault "gather" must be in flight before any of them is answered. */
  gatherCount: number = 1;
  #gathered: (() => void)[] = [];

  readonly bucket: string = BUCKET;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => request.socket.destroy());
    });
  }

  static async listen(): Promise<FakeS3> {
    const fake = new FakeS3();
    await new Promise<void>((done) => fake.#server.listen(0, "127.0.0.1", done));
    return fake;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The environment variables that a user would set. */
  get environment(): Record<string, string> {
    return {
      HOME: "/nonexistent",
      ...{ AWS_ACCESS_KEY_ID: ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: SECRET },
      ...{ AWS_REGION: REGION, AWS_ENDPOINT_URL_S3: this.endpoint },
    };
  }

  keys(prefix: string): string[] {
    return [...this.objects.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  /** Makes all locks look like those of a process that has ended. */
  endHolders(): void {
    for (const [key, stored] of this.objects) {
      if (!key.endsWith(".lock")) continue;
      const holder = JSON.parse(stored.data.toString()) as object;
      stored.data = Buffer.from(JSON.stringify({ ...holder, began: "0" }));
    }
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const data = Buffer.concat(pieces);
    const url = new URL(request.url!, this.endpoint);
    const [, bucket, ...rest] = url.pathname.split("/").map(decodeURIComponent);
    const key = rest.join("/");
    const name = `${request.method} ${key}`;
    this.log.push(name);
    const fault = this.faultOf(name);
    if (fault === "tear") return void request.socket.destroy();
    if (fault === "never") return;
    if (fault === "late") await new Promise((done) => setTimeout(done, 20));
    if (fault === "gather") await this.#gather();
    if (typeof fault === "object") return this.#fail(response, fault.status, fault.code);
    if (!isSigned(request, url)) return this.#fail(response, 403, "SignatureDoesNotMatch");
    if (bucket !== BUCKET) return this.#fail(response, 404, "NoSuchBucket");
    const told = request.headers["x-amz-content-sha256"];
    if (told !== sha256(data)) return this.#fail(response, 400, "XAmzContentSHA256Mismatch");
    const answer = key === "" ? this.#list(url) : this.#one(request.method!, key, data);
    if (fault === "lose" || (fault === "half" && answer.content.length === 0))
      return void request.socket.destroy();
    const { status, content, headers } = answer;
    response.writeHead(status, { "content-length": content.length, ...headers });
    if (fault === "half") {
      response.write(content.subarray(0, content.length / 2), () => request.socket.destroy());
      return;
    }
    response.end(request.method === "HEAD" ? undefined : content);
  }

  async #gather(): Promise<void> {
    const all = new Promise<void>((done) => this.#gathered.push(done));
    if (this.#gathered.length >= this.gatherCount) {
      for (const done of this.#gathered.splice(0)) done();
    }
    await all;
  }

  #fail(response: ServerResponse, status: number, code: string): void {
    const text = `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>No &amp; no.\u001b[2J</Message></Error>`;
    response.writeHead(status, { "content-type": "application/xml" }).end(text);
  }

  #one(method: string, key: string, data: Buffer): Answer {
    const none = { status: 204, content: Buffer.alloc(0), headers: {} };
    if (method === "PUT") {
      this.objects.set(key, { data, modifiedMs: this.nowMs() });
      return { ...none, status: 200 };
    }
    if (method === "DELETE") {
      this.objects.delete(key);
      return none;
    }
    const found = this.objects.get(key);
    if (found === undefined) {
      const content = Buffer.from("<Error><Code>NoSuchKey</Code></Error>");
      return { status: 404, content, headers: {} };
    }
    const headers = { "last-modified": new Date(found.modifiedMs).toUTCString() };
    return { status: 200, content: found.data, headers };
  }

  #list({ searchParams }: URL): Answer {
    const prefix = searchParams.get("prefix") ?? "";
    const after = searchParams.get("continuation-token") ?? "";
    const left = this.keys(prefix).filter((key) => key > after);
    const page = left.slice(0, PAGE);
    const isMore = left.length > PAGE;
    const contents = page.map((key) => {
      const { data, modifiedMs } = this.objects.get(key)!;
      const time = new Date(modifiedMs).toISOString();
      return `<Contents><Key>${key}</Key><LastModified>${time}</LastModified><Size>${data.length}</Size></Contents>`;
    });
    const next = isMore ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    const text = `<?xml version="1.0"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>${isMore}</IsTruncated>${next}${contents.join("")}</ListBucketResult>`;
    return { status: 200, content: Buffer.from(text), headers: {} };
  }
}
