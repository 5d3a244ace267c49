import { nbdOption, u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type ExportDescription,
  FixedContext,
  matchingContexts,
  transmissionFlags,
} from "../dist/exports.js";
import { Handshake } from "../dist/handshake.js";
import { golden, text } from "./support.js";

const GIB = 2 ** 30;
const UNSUP = 0x80000001;
const INVALID = 0x80000003;
const UNKNOWN = 0x80000006;
const TOO_BIG = 0x80000009;
const EXT_HEADER_REQD = 0x8000000a;

function context(name: string): FixedContext {
  return new FixedContext(name, new Float64Array(0), new Uint32Array(0));
}

const IMAGE: ExportDescription = {
  name: "img",
  description: "snapshot image",
  sizeBytes: GIB,
  blockBytes: 1,
  preferredBlockBytes: 4096,
  flags: transmissionFlags({ readOnly: true, rotational: false, trims: true }),
  contexts: [context("base:allocation"), context("x:other"), context("qemu:dirty-bitmap:b0")],
};

function handshakeOf(...exports: ExportDescription[]): Handshake<ExportDescription> {
  return new Handshake({
    find: (name) => exports.find((one) => one.name === name || name === ""),
    all: () => exports,
  });
}

/** Feeds all bytes, and returns the server's. */
function feed(
  handshake: Handshake<ExportDescription>,
  bytes: Buffer,
  stepBytes = Infinity,
): Buffer {
  const said: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const taken = handshake.consume(bytes.subarray(at, Math.min(at + stepBytes, bytes.length)));
    if (taken === 0) break;
    at += taken;
    said.push(handshake.replies.drain());
  }
  return Buffer.concat(said);
}

/** A handshake after the greeting and the client's flags. */
function begun(...exports: ExportDescription[]): Handshake<ExportDescription> {
  const handshake = handshakeOf(...exports);
  handshake.replies.drain();
  feed(handshake, u32(3));
  return handshake;
}

/** Option and type of each reply. */
function replies(said: Buffer): [option: number, type: number, data: string][] {
  const found: [number, number, string][] = [];
  for (let at = 0; at < said.length; ) {
    const length = said.readUInt32BE(at + 16);
    const data = said.toString("latin1", at + 20, at + 20 + length);
    found.push([said.readUInt32BE(at + 8), said.readUInt32BE(at + 12), data]);
    at += 20 + length;
  }
  return found;
}

for (const stepBytes of [Infinity, 7, 1]) {
  test(`sends what qemu-nbd sends to libnbd, fed ${stepBytes} bytes at a time`, () => {
    const handshake = handshakeOf(IMAGE);
    const greeting = golden("4e42444d41474943 49484156454f5054 0003");
    assert.equal(handshake.replies.drain(), greeting);
    assert.equal(feed(handshake, golden("00000003"), stepBytes), Buffer.alloc(0));
    assert.equal(
      feed(handshake, golden("49484156454f5054 00000008 00000000"), stepBytes),
      golden("0003e889045565a9 00000008 00000001 00000000"),
    );
    const queries = golden(
      `49484156454f5054 0000000a 00000036 00000003 "img" 00000002 0000000f "base:allocation"
       00000014 "qemu:dirty-bitmap:b0"`,
    );
    assert.equal(
      feed(handshake, queries, stepBytes),
      golden(
        `0003e889045565a9 0000000a 00000004 00000013 00000000 "base:allocation"
         0003e889045565a9 0000000a 00000004 00000018 00000001 "qemu:dirty-bitmap:b0"
         0003e889045565a9 0000000a 00000001 00000000`,
      ),
    );
    const go = golden('49484156454f5054 00000007 0000000b 00000003 "img" 0001 0003');
    assert.equal(
      feed(handshake, go, stepBytes),
      golden(
        `0003e889045565a9 00000007 00000003 00000010 0002 "snapshot image"
         0003e889045565a9 00000007 00000003 0000000e 0003 00000001 00001000 02000000
         0003e889045565a9 00000007 00000003 0000000c 0000 0000000040000000 058f
         0003e889045565a9 00000007 00000001 00000000`,
      ),
    );
    assert.is(handshake.agreement?.export, IMAGE);
    assert.is(handshake.agreement?.structured, true);
    const names = handshake.agreement?.contexts.map(({ name }) => name);
    assert.equal(names, ["base:allocation", "qemu:dirty-bitmap:b0"]);
  });
}

test("without structured replies DF is not offered", () => {
  const said = replies(
    feed(begun(IMAGE), nbdOption(7, Buffer.concat([text("img"), u32(0).subarray(2)]))),
  );
  const info = Buffer.from(said.at(-2)![2], "latin1");
  assert.is(info.readUInt16BE(10), 0x050f);
});

test("extended headers are agreed on before or after structured replies, once", () => {
  const go = nbdOption(7, Buffer.concat([text("img"), Buffer.alloc(2)]));
  const select = nbdOption(10, Buffer.concat([text("img"), u32(1), text("base:allocation")]));
  const both = begun(IMAGE);
  const types = (bytes: Buffer) => replies(feed(both, bytes)).map(([, type]) => type);
  assert.equal(types(nbdOption(8)), [1]);
  assert.equal(types(nbdOption(11)), [1]);
  assert.equal(types(nbdOption(11)), [INVALID]);
  assert.equal(types(nbdOption(8)), [EXT_HEADER_REQD]);
  assert.equal(types(select), [4, 1]);
  feed(both, go);
  assert.ok(both.agreement?.extended && both.agreement.structured);
  assert.is(both.agreement.contexts.length, 1);
  const compact = begun(IMAGE);
  feed(compact, Buffer.concat([nbdOption(8), go]));
  assert.is(compact.agreement?.extended, false);
  assert.is(begun(IMAGE).agreement, undefined);
  // This option has no reply that could refuse.
  const byName = begun(IMAGE);
  feed(byName, nbdOption(11));
  assert.is(feed(byName, nbdOption(1, Buffer.from("img"))).length, 0);
  assert.ok(byName.isClosed);
});

test("block status for some contexts is offered with extended headers and contexts", () => {
  const select = nbdOption(10, Buffer.concat([text("img"), u32(1), text("base:allocation")]));
  const flagsOf = (number: number, ...before: Buffer[]): number => {
    const handshake = begun(IMAGE);
    for (const bytes of before) feed(handshake, bytes);
    const asked = nbdOption(number, Buffer.concat([text("img"), Buffer.alloc(2)]));
    const size = replies(feed(handshake, asked)).at(-2)![2];
    return Buffer.from(size, "latin1").readUInt16BE(10);
  };
  assert.is(flagsOf(7, nbdOption(11), select), 0x158f);
  assert.is(flagsOf(7, nbdOption(11)), 0x058f);
  assert.is(flagsOf(6, nbdOption(11)), 0x158f);
  assert.is(flagsOf(7, nbdOption(8), select), 0x058f);
});

test("the oldest handshake ends with zeroes, unless the client declines them", () => {
  const handshake = handshakeOf(IMAGE);
  handshake.replies.drain();
  feed(handshake, u32(1));
  const said = feed(handshake, nbdOption(1, Buffer.from("img")));
  assert.is(said.length, 134);
  assert.is(said.readBigUInt64BE(0), BigInt(GIB));
  assert.is(said.readUInt16BE(8), 0x050f);
  assert.is(feed(begun(IMAGE), nbdOption(1, Buffer.from("img"))).length, 10);
  const unknown = begun(IMAGE);
  assert.is(feed(unknown, nbdOption(1, Buffer.from("none"))).length, 0);
  assert.ok(unknown.isClosed);
});

test("exports are listed, and described without beginning transmission", () => {
  const other = { ...IMAGE, name: "other", description: "" };
  const handshake = begun(IMAGE, other);
  assert.equal(replies(feed(handshake, nbdOption(3))), [
    [3, 2, "\0\0\0\x03imgsnapshot image"],
    [3, 2, "\0\0\0\x05other"],
    [3, 1, ""],
  ]);
  assert.equal(
    replies(feed(handshake, nbdOption(3, u32(1)))).map(([, type]) => type),
    [INVALID],
  );
  const info = Buffer.concat([text("other"), Buffer.from([0, 1, 0, 1])]);
  const types = replies(feed(handshake, nbdOption(6, info))).map(([, type, data]) => [
    type,
    data.charCodeAt(1),
  ]);
  assert.equal(types, [
    [3, 1],
    [3, 3],
    [3, 0],
    [1, NaN],
  ]);
  assert.is(handshake.agreement, undefined);
});

test("contexts are found by name, and by namespace in a list", () => {
  const list = (handshake: Handshake<ExportDescription>, number: number, ...queries: string[]) => {
    const data = Buffer.concat([text("img"), u32(queries.length), ...queries.map(text)]);
    return replies(feed(handshake, nbdOption(number, data)));
  };
  const handshake = begun(IMAGE);
  assert.equal(
    list(handshake, 10, "base:allocation").map(([, type]) => type),
    [INVALID],
  );
  feed(handshake, nbdOption(8));
  const found = (...queries: string[]): string[] =>
    list(handshake, 9, ...queries)
      .slice(0, -1)
      .map(([, , data]) => data.slice(4));
  assert.equal(found(), ["base:allocation", "x:other", "qemu:dirty-bitmap:b0"]);
  assert.equal(found("base:"), ["base:allocation"]);
  assert.equal(found("qemu:"), ["qemu:dirty-bitmap:b0"]);
  assert.equal(found("qemu:dirty-bitmap:"), ["qemu:dirty-bitmap:b0"]);
  assert.equal(found("base:unknown", "nothing"), []);
  assert.equal(
    list(handshake, 10, "base:").map(([, type]) => type),
    [1],
  );
});

test("an unlisted context is found by its whole name", () => {
  const contexts = [
    { name: "qemu:dirty-bitmap:since-1" },
    { name: "qemu:dirty-bitmap:since-1-of-x", isUnlisted: true },
  ];
  const found = (queries: string[], lists: boolean) =>
    matchingContexts(contexts, queries, lists).map(({ name }) => name);
  const [plain, whole] = contexts.map(({ name }) => name) as [string, string];
  assert.equal(found([], true), [plain]);
  assert.equal(found(["qemu:dirty-bitmap:"], true), [plain]);
  for (const lists of [true, false]) {
    assert.equal(found([whole], lists), [whole]);
    assert.equal(found(["qemu:dirty-bitmap:since-1-of-y"], lists), []);
  }
});

test("contexts are selected for one export, and by the last request for them", () => {
  const other = { ...IMAGE, name: "other" };
  const select = (name: string, query: string): Buffer =>
    nbdOption(10, Buffer.concat([text(name), u32(1), text(query)]));
  const go = nbdOption(7, Buffer.concat([text("img"), Buffer.alloc(2)]));
  const selected = (...bytes: Buffer[]): number | undefined => {
    const handshake = begun(IMAGE, other);
    feed(handshake, nbdOption(8));
    for (const part of bytes) feed(handshake, part);
    return handshake.agreement?.contexts.length;
  };
  assert.is(selected(select("img", "base:allocation"), go), 1);
  assert.is(selected(select("other", "base:allocation"), go), 0);
  assert.is(selected(select("img", "base:allocation"), select("img", "x"), go), 0);
  assert.is(selected(select("img", "base:allocation"), select("none", "x"), go), 0);
});

const REFUSED: [what: string, bytes: Buffer, type: number][] = [
  ["an unknown option", nbdOption(99, u32(1, 2, 3)), UNSUP],
  ["STARTTLS", nbdOption(5), UNSUP],
  ["extended headers of something", nbdOption(11, u32(1)), INVALID],
  ["an unknown export", nbdOption(7, Buffer.concat([text("none"), Buffer.alloc(2)])), UNKNOWN],
  ["a name that is cut off", nbdOption(7, u32(1000)), INVALID],
  ["a name that is too long", nbdOption(7, text("x".repeat(5000))), INVALID],
  [
    "more information than there are bytes",
    nbdOption(6, Buffer.concat([text("img"), Buffer.from([0, 9])])),
    INVALID,
  ],
  ["bytes behind the end", nbdOption(7, Buffer.concat([text("img"), Buffer.alloc(5)])), INVALID],
  ["data where none belongs", nbdOption(8, u32(1)), INVALID],
  ["an option of 70000 bytes", nbdOption(7, Buffer.alloc(70_000)), TOO_BIG],
  ["a million queries", nbdOption(9, Buffer.concat([text("img"), u32(1_000_000)])), TOO_BIG],
];
for (const [what, bytes, type] of REFUSED) {
  test(`${what}: an error by the protocol, and it continues`, () => {
    const handshake = begun(IMAGE);
    assert.equal(
      replies(feed(handshake, bytes)).map(([, found]) => found),
      [type],
    );
    assert.not.ok(handshake.isClosed);
    assert.equal(replies(feed(handshake, nbdOption(8))), [[8, 1, ""]]);
  });
}

test("violations of the protocol end the connection", () => {
  for (const bytes of [u32(7), u32(0x80000003), u32(0)]) {
    const handshake = handshakeOf(IMAGE);
    feed(handshake, bytes);
    assert.ok(handshake.isClosed);
  }
  for (const bytes of [
    Buffer.from("GET / HTTP/1.1\r\n"),
    Buffer.concat([Buffer.from("IHAVEOPT"), u32(3, 0xffffffff)]),
  ]) {
    const handshake = begun(IMAGE);
    assert.is(feed(handshake, bytes).length, 0);
    assert.ok(handshake.isClosed);
  }
});

test("a flood of options ends at its bound", () => {
  const handshake = begun(IMAGE);
  const said = replies(
    feed(handshake, Buffer.concat(Array.from({ length: 1000 }, () => nbdOption(3)))),
  );
  assert.is(said.filter(([, type]) => type === 1).length, 256);
  assert.ok(handshake.isClosed);
});

test("a disconnecting client gets its reply first", () => {
  const handshake = begun(IMAGE);
  assert.equal(replies(feed(handshake, nbdOption(2))), [[2, 1, ""]]);
  assert.ok(handshake.isClosed);
});

test.run();
