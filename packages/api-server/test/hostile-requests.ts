/** Hostile requests from a seed: as bytes, with the way in which the connection ends. */

import type { Dice } from "@blksnap/testing";
import { head, plainRoutes, templates, UNKNOWN_ID, whole, withBody } from "./request-templates.js";

const MIB = 2 ** 20;

export interface Hostile {
  /** A description for the message of a failed test. */
  readonly what: string;
  /** Sent one after the other, with a turn of the event loop in between. */
  readonly parts: readonly Buffer[];
  /** wait: for an answer; end: half-close and wait; cut: close without waiting. */
  readonly ending: "wait" | "end" | "cut";
  /** Harmless after all, so it may succeed. */
  readonly mayPass?: boolean;
  /** Its response has a head only. */
  readonly isHead?: boolean;
}

export interface Target {
  /** A snapshot that exists and has no pending event. */
  readonly id: string;
}

function waitFor(what: string, ...parts: Buffer[]): Hostile {
  return { what, parts, ending: "wait" };
}

/** Values that are invalid everywhere in the API, as JSON text. */
const oddValues = [
  "null",
  "true",
  "-1",
  "1.5",
  "1e999",
  "-0.0",
  "9007199254740993",
  "NaN",
  "[]",
  "{}",
  '""',
  '"relative"',
  '"/a\\u0000b"',
  '"\\ud800"',
  `"${"/x".repeat(3000)}"`,
  `${"[".repeat(100_000)}${"]".repeat(100_000)}`,
  '{"__proto__":{"polluted":1}}',
  '{"constructor":{"prototype":{"polluted":1}}}',
];

function withOddValue(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ body }) => body !== undefined));
  const field = dice.pick(Object.keys(template.body!));
  const value = dice.pick(oddValues);
  const fields = Object.entries(template.body!).map(
    ([name, own]) => `${JSON.stringify(name)}:${name === field ? value : JSON.stringify(own)}`,
  );
  const bytes = withBody(template, `{${fields.join(",")}}`);
  return waitFor(`${template.route} with ${field} ${value.slice(0, 40)}`, bytes);
}

function withUnknownField(dice: Dice): Hostile {
  const template = dice.pick(templates);
  const name = dice.pick(["force", "__proto__", "toString", "", "x".repeat(10_000), "é\u2028"]);
  if (dice.below(2) === 0) {
    const glue = template.path.includes("?") ? "&" : "?";
    const path = `${template.path}${glue}${encodeURIComponent(name || "x")}=1`;
    return waitFor(
      `${template.route} with a stray ${name.slice(0, 20)}`,
      whole({ ...template, path }),
    );
  }
  const body = JSON.stringify({ ...template.body }).slice(0, -1);
  const comma = body === "{" ? "" : ",";
  const text = `${body}${comma}${JSON.stringify(name)}:1}`;
  return waitFor(`${template.route} with the field ${name.slice(0, 20)}`, withBody(template, text));
}

function withoutField(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ body }) => body !== undefined));
  const gone = dice.pick(Object.keys(template.body!));
  const body = Object.fromEntries(Object.entries(template.body!).filter(([name]) => name !== gone));
  return waitFor(`${template.route} lacks ${gone}`, withBody(template, JSON.stringify(body)));
}

function withOddQuery(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ path }) => path.includes("?")));
  const values = [
    "",
    "-1",
    "1e3",
    "1.5",
    "99999999999999999999",
    "%00",
    "%zz",
    "%ff",
    "a".repeat(5000),
  ];
  const names = [...template.path.matchAll(/[?&]([a-z_]+)=/g)].map(([, name]) => name!);
  const name = dice.pick(names);
  const value = dice.pick(values);
  const path = template.path.replace(new RegExp(`([?&]${name}=)[^&]*`), `$1${value}`);
  const twice = dice.below(4) === 0 ? `${template.path}&${name}=${value}` : path;
  return waitFor(
    `${template.route} with ${name}=${value.slice(0, 20)}`,
    head(template.method, twice, {}),
  );
}

/** Properties of a JSON body that is truncated, torn, or no JSON at all. */
function withTornBody(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ body }) => body !== undefined));
  const text = Buffer.from(JSON.stringify(template.body));
  const bodies: readonly (readonly [string, Buffer])[] = [
    ["empty", Buffer.alloc(0)],
    ["cut", text.subarray(0, dice.below(text.length - 1) + 1).subarray(0, text.length - 1)],
    ["followed by more", Buffer.concat([text, Buffer.from(dice.pick(["}", "{}", ",", "\0"]))])],
    [
      "no UTF-8",
      Buffer.concat([
        Buffer.from('{"device":"/'),
        Buffer.from([0xff, 0xc0, 0x80]),
        Buffer.from('"'),
      ]),
    ],
    ["random", dice.bytes(dice.below(200) + 1)],
    ["a number", Buffer.from(dice.pick(["7", "NaN", "1e999", "-", "01"]))],
    ["UTF-16", Buffer.from(`\ufeff${text.toString()}`, "utf16le")],
    ["a comment", Buffer.concat([Buffer.from("/* */"), text])],
    ["nested in arrays", Buffer.from(`${"[".repeat(100_000)}1`)],
    ["nested in objects", Buffer.from(`${'{"a":'.repeat(100_000)}1`)],
  ];
  const [what, body] = dice.pick(bodies);
  return waitFor(`${template.route}, body ${what}`, withBody(template, body));
}

function withLargeBody(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ body }) => body !== undefined));
  const length = dice.pick([MIB - 16, MIB, MIB + 1, 2 * MIB]);
  const filler = dice.pick(["x", "[", " ", '"', "\\", "\0"]);
  const start = dice.pick(['{"device":"/', "", '{"ranges":[']);
  const body = Buffer.alloc(length, filler);
  body.write(start);
  return waitFor(`${template.route}, body of ${length} ${filler}`, withBody(template, body));
}

function withOddType(dice: Dice): Hostile {
  const template = dice.pick(templates.filter(({ body }) => body !== undefined));
  const types = ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
  const type = dice.pick([...types, "application/jsonx", "a", "application/json/x", "\xff", ";"]);
  return waitFor(
    `${template.route} as ${type}`,
    withBody(template, JSON.stringify(template.body), type),
  );
}

function toNowhere(dice: Dice): Hostile {
  const methods = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND"];
  const ids = ["x", "..", "%2e%2e%2f", "%00", "a".repeat(3000), UNKNOWN_ID.slice(1), "%"];
  const paths = [
    "/",
    "//",
    "/v1",
    "/v2/trackers",
    "/v1/trackers/",
    "/V1/TRACKERS",
    "/v1/trackers/cbt/map/x",
    "/v1/../../etc/passwd",
    "/%zz",
    "/\xff",
    "*",
    "http://other/v1/status",
    `/v1/snapshots/${dice.pick(ids)}`,
    `/v1/snapshots/${dice.pick(ids)}/take`,
    `/v1/snapshots/${dice.pick(ids)}/events`,
  ];
  const method = dice.pick(methods);
  const path = dice.pick(paths);
  const mayPass = path === "http://other/v1/status";
  const request = waitFor(`${method} ${path.slice(0, 40)}`, head(method, path, {}));
  return { ...request, mayPass, isHead: method === "HEAD" };
}

/** Bodies and queries on routes that take none. */
function withStrayBody(dice: Dice): Hostile {
  const path = dice.pick(plainRoutes);
  const template = { method: "GET", route: path, path };
  const body = dice.pick(["[]", "7", '{"a":1}', '""', "{"]);
  if (dice.below(2) === 0) return waitFor(`${path} with ${body}`, withBody(template, body));
  return waitFor(
    `${path} with a query`,
    head("GET", `${path}?${dice.pick(["x=1", "device=/d", "&&x"])}`, {}),
  );
}

const smugglingHeads: readonly (readonly [string, string])[] = [
  ["two lengths", "content-length: 5\r\ncontent-length: 6\r\n"],
  ["two lengths in one", "content-length: 5, 6\r\n"],
  ["length and chunks", "content-length: 5\r\ntransfer-encoding: chunked\r\n"],
  ["length signed", "content-length: +5\r\n"],
  ["length negative", "content-length: -1\r\n"],
  ["length in hex", "content-length: 0x5\r\n"],
  ["length endless", `content-length: ${"9".repeat(30)}\r\n`],
  ["encoding unknown", "transfer-encoding: xchunked\r\n"],
  ["encodings two", "transfer-encoding: chunked, identity\r\n"],
  ["space before colon", "content-length : 5\r\n"],
  ["folded", "x: a\r\n b\r\ncontent-length: 5\r\n"],
  ["bare line feeds", "x: a\ncontent-length: 5\n"],
  ["bare carriage return", "x: a\rcontent-length: 5\r\n"],
  ["no colon", "nonsense\r\n"],
  ["no name", ": x\r\n"],
  ["zero byte", "x: a\0b\r\n"],
  ["expecting something", "expect: the-unexpected\r\ncontent-length: 5\r\n"],
  ["an upgrade", "connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n"],
];

function smuggling(dice: Dice): Hostile {
  const [what, headers] = dice.pick(smugglingHeads);
  const inner = "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n";
  const text =
    `POST /v1/trackers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n${headers}\r\n` +
    `0\r\n\r\n${inner}`;
  // The bytes after the head may form another request, which may be valid.
  return {
    what: `smuggling: ${what}`,
    parts: [Buffer.from(text, "latin1")],
    ending: "end",
    mayPass: true,
  };
}

function withOddChunks(dice: Dice): Hostile {
  const start = "POST /v1/trackers HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
  const chunks = dice.pick([
    "zz\r\nx\r\n",
    "fffffffffffffffff\r\nx",
    "-1\r\nx\r\n",
    `1;${"x".repeat(30_000)}\r\n{\r\n0\r\n\r\n`,
    "1\r\n{}\r\n0\r\n\r\n",
    "1\r\n{\r\n0\r\nx: y\r\n\r\n",
    "5\r\n{",
  ]);
  const text = `${start}transfer-encoding: chunked\r\n\r\n${chunks}`;
  return {
    what: `chunks ${chunks.slice(0, 20)}`,
    parts: [Buffer.from(text, "latin1")],
    ending: "end",
  };
}

function noHttp(dice: Dice): Hostile {
  const openings: readonly Buffer[] = [
    Buffer.from("\x16\x03\x01\x02\x00\x01\x00\x01", "latin1"),
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from("GET /v1/status\r\n\r\n"),
    Buffer.from("GET /v1/status HTTP/9.9\r\n\r\n"),
    Buffer.from("GET  /v1/status HTTP/1.1\r\n\r\n"),
    Buffer.from("get /v1/status HTTP/1.1\r\n\r\n"),
    Buffer.from("CONNECT other:80 HTTP/1.1\r\nhost: x\r\n\r\n"),
    Buffer.from("\r\n\r\n\r\n"),
    Buffer.from('{"device":"/dev/x"}\n'),
    Buffer.alloc(70_000, "x"),
    dice.bytes(dice.below(400) + 1),
  ];
  return { what: "no HTTP", parts: [dice.pick(openings)], ending: "end", mayPass: true };
}

function withHugeHeader(dice: Dice): Hostile {
  const length = dice.pick([15_000, 20_000, 100_000, MIB]);
  const name = dice.below(2) === 0 ? "x" : "x".repeat(length);
  const headers = { [name]: "y".repeat(length) };
  const many = Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`x${i}`, "y"]));
  const chosen = dice.below(3) === 0 ? many : headers;
  const what = `header of ${length}`;
  return { ...waitFor(what, head("GET", "/v1/version", chosen)), mayPass: true };
}

function pipelined(dice: Dice): Hostile {
  const requests = Array.from({ length: dice.below(20) + 2 }, () => whole(dice.pick(templates)));
  const garbage = dice.pick([Buffer.alloc(0), dice.bytes(30), Buffer.from("GET")]);
  return { what: "pipelined", parts: [Buffer.concat([...requests, garbage])], ending: "end" };
}

function cutShort(dice: Dice): Hostile {
  const bytes = whole(dice.pick(templates));
  const part = bytes.subarray(0, dice.below(bytes.length));
  const ending = dice.pick(["end", "cut"] as const);
  return { what: `cut after ${part.length} bytes`, parts: [part], ending };
}

function inSlowPieces(dice: Dice): Hostile {
  const bytes = whole(dice.pick(templates));
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const next = Math.min(bytes.length, at + dice.below(40) + 1);
    parts.push(bytes.subarray(at, next));
    at = next;
  }
  return { what: "in pieces", parts, ending: "wait" };
}

/** A wait that its client cancels. */
function abandonedWait(dice: Dice, target: Target): Hostile {
  const rest = dice.pick(["events?timeout_ms=2147483647", "events/follow"]);
  const bytes = head("GET", `/v1/snapshots/${target.id}/${rest}`, {});
  return { what: `abandoned ${rest}`, parts: [bytes], ending: "cut", mayPass: true };
}

type Kind = (dice: Dice, target: Target) => Hostile;

/** Each with its weight. */
const kinds: readonly Kind[] = [
  ...Array<Kind>(8).fill(withOddValue),
  ...Array<Kind>(6).fill(withUnknownField),
  ...Array<Kind>(3).fill(withoutField),
  ...Array<Kind>(6).fill(withOddQuery),
  ...Array<Kind>(8).fill(withTornBody),
  withLargeBody,
  ...Array<Kind>(3).fill(withOddType),
  ...Array<Kind>(6).fill(toNowhere),
  ...Array<Kind>(4).fill(withStrayBody),
  ...Array<Kind>(8).fill(smuggling),
  ...Array<Kind>(4).fill(withOddChunks),
  ...Array<Kind>(6).fill(noHttp),
  ...Array<Kind>(2).fill(withHugeHeader),
  ...Array<Kind>(3).fill(pipelined),
  ...Array<Kind>(8).fill(cutShort),
  ...Array<Kind>(4).fill(inSlowPieces),
  ...Array<Kind>(4).fill(abandonedWait),
];

export function hostileRequest(dice: Dice, target: Target): Hostile {
  return dice.pick(kinds)(dice, target);
}
