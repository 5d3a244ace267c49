/** Servers that break every rule: the client names the violation, never waits forever, and ends. */
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { NbdClient, type NbdError, type NbdErrorCode } from "@blksnap/nbd";
import { u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SocketReader } from "../dist/socket-reader.js";
import { golden, withFolder } from "./support.js";

const GREETING = golden('"NBDMAGICIHAVEOPT" 0003');
const STRUCTURED = 8;
const EXTENDED = 11;
const UNSUP = 0x80000001;
const SET_CONTEXT = 10;
const GO = 7;
const ACK = 1;
const INFO = 3;
const CONTEXT = 4;
const NAME = "base:allocation";

function reply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([golden("0003e889 045565a9"), u32(option, type, data.length), data]);
}

function exported(sizeBytes: bigint): Buffer {
  const info = Buffer.alloc(12);
  info.writeBigUInt64BE(sizeBytes, 2);
  info.writeUInt16BE(0x058f, 10);
  return reply(GO, INFO, info);
}

function sizes(block: number, preferred: number, payload: number): Buffer {
  return reply(GO, INFO, Buffer.concat([Buffer.from([0, 3]), u32(block, preferred, payload)]));
}

/** A structured reply to the first request. */
function chunk(type: number, payload: Buffer, flags = 1, cookie = 0): Buffer {
  const head = golden("668e33ef 0000 0000 00000000 00000000 00000000");
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeUInt32BE(cookie, 12);
  head.writeUInt32BE(payload.length, 16);
  return Buffer.concat([head, payload]);
}

/** The same with extended headers. */
function extended(type: number, payload: Buffer, flags = 1, offset = 4096, words = [0, 0]): Buffer {
  const [cookie = 0, lengthHigh = 0] = words;
  const head = golden("6e8a278c 0000 0000 00000000 00000000 0000000000000000 0000000000000000");
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeUInt32BE(cookie, 12);
  head.writeUInt32BE(offset, 20);
  head.writeUInt32BE(lengthHigh, 24);
  head.writeUInt32BE(payload.length, 28);
  return Buffer.concat([head, payload]);
}

const SELECTED = Buffer.concat([
  reply(SET_CONTEXT, CONTEXT, Buffer.concat([u32(0), Buffer.from(NAME)])),
  reply(SET_CONTEXT, ACK),
]);
const BEGUN = Buffer.concat([exported(1n << 20n), reply(GO, ACK)]);
const AGREED = [reply(EXTENDED, UNSUP), reply(STRUCTURED, ACK), SELECTED, BEGUN];
const AGREED_EXTENDED = [reply(EXTENDED, ACK), SELECTED, BEGUN];

/** Responds to each option, or request, with the next part, and is silent then. */
async function withAnswers(
  greeting: Buffer,
  answers: readonly Buffer[],
  use: (socketPath: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      void talk(socket, greeting, answers).catch(() => undefined);
    });
    const socketPath = join(folder, "s");
    await new Promise<void>((done) => server.listen(socketPath, done));
    try {
      await use(socketPath);
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    }
  });
}

async function talk(socket: Socket, greeting: Buffer, answers: readonly Buffer[]): Promise<void> {
  const reader = new SocketReader(socket);
  socket.write(greeting);
  await reader.read(4);
  let isOver = false;
  const requestBytes = answers[0] === AGREED_EXTENDED[0] ? 32 : 28;
  for (const answer of answers) {
    const header = await reader.read(isOver ? requestBytes : 16);
    if (!isOver) {
      await reader.read(header.readUInt32BE(12));
      isOver = header.readUInt32BE(8) === GO;
    }
    socket.write(answer);
  }
}

/** For rejections: with this code, and for this reason. */
async function failsWith(what: string, call: Promise<unknown>, code: NbdErrorCode, why: RegExp) {
  const error = await call.then(
    () => ({ code: "none", message: "it did not fail" }),
    (reason: unknown) => reason as NbdError,
  );
  assert.is(error.code, code, `${what}: ${error.message}`);
  assert.match(error.message, why, what);
}

/** How long a server may be silent: silence ends soon, and responses have enough time. */
function optionsFor(code: NbdErrorCode): { contexts: string[]; timeoutMs: number } {
  return { contexts: [NAME], timeoutMs: code === "TIMED_OUT" ? 500 : 200_000 };
}

/** On a slow machine a handshake may exceed the limit: retry with a longer one. */
async function connected(socketPath: string, code: NbdErrorCode): Promise<NbdClient> {
  const { timeoutMs, ...options } = optionsFor(code);
  for (let limitMs = timeoutMs; ; limitMs *= 10) {
    try {
      return await NbdClient.connect(
        { socketPath, exportName: "x" },
        { ...options, timeoutMs: limitMs },
      );
    } catch (error) {
      if ((error as NbdError).code !== "TIMED_OUT" || limitMs > 200_000) throw error;
    }
  }
}

const HANDSHAKES: [
  what: string,
  code: NbdErrorCode,
  why: RegExp,
  greeting: Buffer,
  answers: Buffer[],
][] = [
  [
    "no server of NBD",
    "PROTOCOL_VIOLATED",
    /no NBD server/,
    Buffer.from("SSH-2.0-OpenSSH_9.2p1\r\n"),
    [],
  ],
  [
    "the old handshake",
    "PROTOCOL_VIOLATED",
    /no NBD server/,
    golden('"NBDMAGIC" 0000420281861253 0000'),
    [],
  ],
  ["silence", "TIMED_OUT", /says nothing/, Buffer.alloc(0), []],
  ["silence after the greeting", "TIMED_OUT", /says nothing/, GREETING, []],
  [
    "an answer to another option",
    "PROTOCOL_VIOLATED",
    /not a reply to it/,
    GREETING,
    [reply(GO, ACK)],
  ],
  [
    "an answer that is too long",
    "PROTOCOL_VIOLATED",
    /not a reply to it/,
    GREETING,
    [Buffer.concat([golden("0003e889 045565a9"), u32(EXTENDED, ACK, 0x7fffffff)])],
  ],
  [
    "more than can be answered",
    "PROTOCOL_VIOLATED",
    /without an end/,
    GREETING,
    [
      ...AGREED.slice(0, 2),
      Buffer.concat(Array(300).fill(reply(SET_CONTEXT, CONTEXT, Buffer.alloc(65_536)))),
    ],
  ],
  [
    "no size",
    "PROTOCOL_VIOLATED",
    /send the size/,
    GREETING,
    [...AGREED.slice(0, 3), reply(GO, ACK)],
  ],
  [
    "a size beyond all numbers",
    "PROTOCOL_VIOLATED",
    /send the size/,
    GREETING,
    [...AGREED.slice(0, 3), Buffer.concat([exported(2n ** 64n - 1n), reply(GO, ACK)])],
  ],
  ...[
    [0, 4096, 1 << 25],
    [3, 4096, 1 << 25],
    [512, 4096, 0],
    [4096, 4096, 512],
  ].map(([block, preferred, payload]): (typeof HANDSHAKES)[number] => [
    `blocks of ${block}, payloads of ${payload}`,
    "PROTOCOL_VIOLATED",
    /block sizes/,
    GREETING,
    [
      ...AGREED.slice(0, 3),
      Buffer.concat([exported(1n << 20n), sizes(block!, preferred!, payload!), reply(GO, ACK)]),
    ],
  ]),
];

test("handshakes that break the rules end with a named error", async () => {
  for (const [what, code, why, greeting, answers] of HANDSHAKES) {
    await withAnswers(greeting, answers, async (socketPath) => {
      const place = { socketPath, exportName: "x" };
      const connecting = NbdClient.connect(place, optionsFor(code));
      await failsWith(what, connecting, code, why);
    });
  }
});

const offset = (at: number, ...rest: Buffer[]) => Buffer.concat([u32(0, at), ...rest]);
const SECTOR = Buffer.alloc(512);
const HALF = Buffer.alloc(256);
const READS: [what: string, code: NbdErrorCode, why: RegExp, answer: Buffer][] = [
  ["silence", "TIMED_OUT", /says nothing/, Buffer.alloc(0)],
  ["bad magic", "PROTOCOL_VIOLATED", /with magic/, golden("01010101 00000000 00000000 00000000")],
  ["to no request", "PROTOCOL_VIOLATED", /to no request/, chunk(1, offset(0, SECTOR), 1, 9)],
  ["before what was asked for", "PROTOCOL_VIOLATED", /not asked for/, chunk(1, offset(0, SECTOR))],
  [
    "behind what was asked for",
    "PROTOCOL_VIOLATED",
    /not asked for/,
    chunk(1, offset(4608, SECTOR)),
  ],
  ["too much", "PROTOCOL_VIOLATED", /not asked for/, chunk(1, offset(4096, Buffer.alloc(4096)))],
  ["without data", "PROTOCOL_VIOLATED", /without data/, chunk(1, offset(4096))],
  ["too little", "PROTOCOL_VIOLATED", /without all/, chunk(0, Buffer.alloc(0))],
  [
    "one half twice, the other not at all",
    "PROTOCOL_VIOLATED",
    /come already/,
    Buffer.concat([chunk(1, offset(4096, HALF), 0), chunk(1, offset(4096, HALF))]),
  ],
  [
    "twice the same",
    "PROTOCOL_VIOLATED",
    /come already/,
    Buffer.concat([chunk(1, offset(4096, SECTOR), 0), chunk(1, offset(4096, SECTOR))]),
  ],
  [
    "a hole over the middle of what comes behind it, and no beginning",
    "PROTOCOL_VIOLATED",
    /come already/,
    Buffer.concat([chunk(1, offset(4352, HALF), 0), chunk(2, offset(4224, u32(256)))]),
  ],
  ["a half alone", "PROTOCOL_VIOLATED", /without all/, chunk(1, offset(4352, HALF))],
  [
    "a hole of 4 GiB",
    "PROTOCOL_VIOLATED",
    /not asked for/,
    chunk(2, offset(4096, u32(0xffffffff))),
  ],
  ["block status", "PROTOCOL_VIOLATED", /block status of/, chunk(5, u32(0, 512, 0))],
  [
    "an error without an end",
    "PROTOCOL_VIOLATED",
    /error of 3 bytes/,
    chunk(0x8001, Buffer.alloc(3)),
  ],
  ["an unknown kind", "PROTOCOL_VIOLATED", /chunk of type 77/, chunk(77, SECTOR)],
  [
    "an error with a text that is cut",
    "REQUEST_FAILED",
    /read of 512/,
    chunk(0x8001, golden("00000005 ffff")),
  ],
];
const STATUSES: [what: string, code: NbdErrorCode, why: RegExp, answer: Buffer][] = [
  ["an extent without length", "PROTOCOL_VIOLATED", /without length/, chunk(5, u32(0, 0, 0))],
  ["half an extent", "PROTOCOL_VIOLATED", /block status of/, chunk(5, u32(0, 512))],
  [
    "one context twice",
    "PROTOCOL_VIOLATED",
    /one context twice/,
    Buffer.concat([chunk(5, u32(0, 512, 0), 0), chunk(5, u32(0, 512, 0))]),
  ],
  ["another context", "NOT_NEGOTIATED", /has no extents/, chunk(5, u32(7, 512, 0))],
];

const EXTENDED_READS: typeof READS = [
  [
    "a simple reply",
    "PROTOCOL_VIOLATED",
    /with magic/,
    Buffer.alloc(32).fill(golden("67446698"), 0, 4),
  ],
  [
    "a structured one",
    "PROTOCOL_VIOLATED",
    /with magic/,
    Buffer.concat([chunk(1, offset(4096, SECTOR))]),
  ],
  ["of another place", "PROTOCOL_VIOLATED", /another place/, extended(1, offset(0, SECTOR), 1, 0)],
  [
    "to no request",
    "PROTOCOL_VIOLATED",
    /to no request/,
    extended(1, offset(4096, SECTOR), 1, 4096, [9]),
  ],
  [
    "a length beyond all numbers",
    "PROTOCOL_VIOLATED",
    /a number of/,
    extended(1, offset(4096, SECTOR), 1, 4096, [0, 0xffffffff]),
  ],
  [
    "4 GiB and some more",
    "PROTOCOL_VIOLATED",
    /not asked for/,
    extended(1, offset(4096, SECTOR), 1, 4096, [0, 1]),
  ],
  ["too little", "PROTOCOL_VIOLATED", /without all/, extended(0, Buffer.alloc(0))],
  ["block status", "PROTOCOL_VIOLATED", /block status of/, extended(6, u32(0, 1, 0, 512, 0, 0))],
];
const EXTENDED_STATUSES: typeof READS = [
  ["short extents", "PROTOCOL_VIOLATED", /chunk of type 5/, extended(5, u32(0, 512, 0), 1, 0)],
  ["half an extent", "PROTOCOL_VIOLATED", /block status of/, extended(6, u32(0, 1, 0, 512), 1, 0)],
  [
    "fewer than are announced",
    "PROTOCOL_VIOLATED",
    /2 are announced/,
    extended(6, u32(0, 2, 0, 512, 0, 0), 1, 0),
  ],
  [
    "an extent without length",
    "PROTOCOL_VIOLATED",
    /without length/,
    extended(6, u32(0, 0, 0, 0, 0, 0), 1, 0),
  ],
  [
    "an extent beyond all numbers",
    "PROTOCOL_VIOLATED",
    /a number of/,
    extended(6, u32(0, 1, 0x200000, 0, 0, 0), 1, 0),
  ],
];

test("a reply is complete in any order of its pieces", async () => {
  const data = (byte: number, length: number) => Buffer.alloc(length, byte);
  const answer = Buffer.concat([
    chunk(1, offset(4096 + 384, data(4, 128)), 0),
    chunk(2, offset(4096 + 128, u32(128)), 0),
    chunk(1, offset(4096, data(1, 128)), 0),
    chunk(1, offset(4096 + 256, data(3, 128))),
  ]);
  await withAnswers(GREETING, [...AGREED, answer], async (socketPath) => {
    const client = await connected(socketPath, "PROTOCOL_VIOLATED");
    const target = Buffer.alloc(512, 9);
    await client.readInto(4096, target);
    assert.equal(target, Buffer.concat([1, 0, 3, 4].map((byte) => data(byte, 128))));
    await client.close();
  });
});

test("replies that break the rules fail their requests, and end the connection", async () => {
  const read = (client: NbdClient): Promise<unknown> => client.read(4096, 512);
  const status = async (client: NbdClient): Promise<void> => {
    for await (const _ of client.extents(NAME)) assert.unreachable("an extent");
  };
  const all = [
    ...READS.map((one) => [...one, AGREED, read] as const),
    ...STATUSES.map((one) => [...one, AGREED, status] as const),
    ...EXTENDED_READS.map((one) => [...one, AGREED_EXTENDED, read] as const),
    ...EXTENDED_STATUSES.map((one) => [...one, AGREED_EXTENDED, status] as const),
  ];
  for (const [what, code, why, answer, agreed, ask] of all) {
    await withAnswers(GREETING, [...agreed, answer], async (socketPath) => {
      const client = await connected(socketPath, code);
      await failsWith(what, ask(client), code, why);
      await client.close();
    });
  }
});

test.run();
