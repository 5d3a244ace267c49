/**
 * Almost valid handshakes and requests, from a seed. Whatever the server receives, it responds or closes, keeps no
 * resources, and serves others. `SEED=N` replays, `SESSIONS=N` makes more.
 */
import { NbdClient } from "@blksnap/nbd";
import { Dice, eventually, nbdOption, u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FixedContext, transmissionFlags } from "../dist/exports.js";
import { Handshake, handshakeBeforeTls } from "../dist/handshake.js";
import {
  extendedRequest,
  MIB,
  RawClient,
  ramDisk,
  request,
  text,
  undisturbed,
  withServer,
} from "./support.js";

const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const sessions = Number(process.env["SESSIONS"] ?? 150);
const HANDSHAKES = 5_000;
const SIZE = 4 * MIB;

const EXPORT = {
  ...{
    name: "disk",
    description: "d",
    sizeBytes: SIZE,
    blockBytes: 512,
    preferredBlockBytes: 4096,
  },
  flags: transmissionFlags({ readOnly: false, rotational: false, trims: true }),
  contexts: [new FixedContext("base:allocation", new Float64Array(0), new Uint32Array(0))],
};

/** A context, so that block status gets a reply. */
const SELECTION = Buffer.concat([text("disk"), u32(1), text("base:allocation")]);

/** The option that begins transmission with extended headers. */
const GO = nbdOption(7, Buffer.concat([text("disk"), Buffer.alloc(2)]));

function anyOption(dice: Dice): Buffer {
  const name = dice.pick(["disk", "", "none", "quiet", "x".repeat(4096)]);
  const queries = dice.pick([[], ["base:allocation"], ["qemu:"], ["base:", "\u0000", "x"]]);
  const contexts = Buffer.concat([text(name), u32(queries.length), ...queries.map(text)]);
  const infos = Buffer.from([0, 2, 0, dice.below(5), 0, 3]);
  return dice.pick([
    nbdOption(dice.below(14)),
    nbdOption(3),
    nbdOption(8),
    nbdOption(11),
    nbdOption(6, Buffer.concat([text(name), infos])),
    nbdOption(9, contexts),
    nbdOption(10, contexts),
    nbdOption(dice.below(12), dice.bytes(dice.below(100))),
    nbdOption(9, Buffer.alloc(dice.pick([65_536, 65_537, 80_000]))),
  ]);
}

function anyRequest(dice: Dice, isExtended: boolean): Buffer {
  const type = dice.pick([0, 0, 0, 1, 1, 3, 4, 5, 6, 7, 8, 99]);
  const offset = dice.pick([
    0n,
    512n,
    BigInt(SIZE - 512),
    BigInt(SIZE),
    1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ]);
  const length = dice.pick([0, 1, 512, 4096, 65_536, 300_032, MIB, SIZE]);
  const flags = dice.pick([0, 0, 0, 1, 2, 4, 8, 16, 32, 0xffff]);
  const cookie = BigInt(dice.below(1000));
  if (isExtended) return anyExtended(dice, { type, flags, offset, cookie }, length);
  const head = request({ type, flags, offset, length, cookie });
  return type === 1 ? Buffer.concat([head, Buffer.alloc(length, 3)]) : head;
}

/** Payloads where they belong, and elsewhere; those of block status name contexts. */
function anyExtended(
  dice: Dice,
  words: { type: number; flags: number; offset: bigint; cookie: bigint },
  length: number,
): Buffer {
  const hasPayload = words.type === 1 ? dice.below(8) > 0 : dice.below(4) === 0;
  if (!hasPayload) {
    const lengths = [BigInt(length), BigInt(length), 2n ** 32n, 2n ** 53n + 1n, 2n ** 64n - 1n];
    return extendedRequest({ ...words, flags: words.flags & ~0x20 }, dice.pick(lengths));
  }
  const filter = Buffer.concat([
    u32(0, length),
    ...dice.pick([[], [0], [1], [0, 0], Array(80).fill(0)]).map((id: number) => u32(id)),
  ]);
  const payload = words.type === 7 ? filter : Buffer.alloc(length, 3);
  return extendedRequest({ ...words, flags: words.flags | 0x20 }, BigInt(payload.length), payload);
}

/** Flips, truncates, doubles or inserts. */
function mutated(dice: Dice, bytes: Buffer): Buffer {
  const at = dice.below(bytes.length);
  switch (dice.below(12)) {
    case 0: {
      const other = Buffer.from(bytes);
      other[at] ^= 1 << dice.below(8);
      return other;
    }
    case 1:
      return bytes.subarray(0, at);
    case 2:
      return Buffer.concat([bytes.subarray(0, at), dice.bytes(dice.below(40)), bytes.subarray(at)]);
    case 3:
      return Buffer.concat([bytes, bytes]);
    default:
      return bytes;
  }
}

/** Closed connections may still be ending, and count until then. */
async function patiently(uri: string): Promise<NbdClient> {
  let client: NbdClient | undefined;
  await eventually("a connection is taken", async () => {
    client = await NbdClient.connect(uri).catch(() => undefined);
    return client !== undefined;
  });
  return client as NbdClient;
}

test(`handshakes from seed ${seed}: each ends, or waits for more`, () => {
  const dice = new Dice(seed);
  for (let round = 0; round < HANDSHAKES; round++) {
    const handshake = new Handshake({
      find: (name) => (name === "disk" || name === "" ? EXPORT : undefined),
      all: () => [EXPORT],
    });
    const parts = [u32(dice.pick([3, 3, 3, 1, 0, 7]))];
    for (let left = dice.below(6); left > 0; left--) parts.push(mutated(dice, anyOption(dice)));
    const bytes = Buffer.concat(parts);
    let at = 0;
    while (at < bytes.length) {
      const taken = handshake.consume(bytes.subarray(at, at + 1 + dice.below(200)));
      if (taken === 0) break;
      at += taken;
      handshake.replies.drain();
    }
    const isOver = handshake.isClosed || handshake.agreement !== undefined;
    assert.ok(isOver || at === bytes.length, `round ${round} of seed ${seed} is stuck`);
  }
});

test(`before TLS, from seed ${seed}: every option is refused until TLS begins`, () => {
  const dice = new Dice(seed ^ 0x715);
  for (let round = 0; round < HANDSHAKES / 5; round++) {
    const handshake = handshakeBeforeTls();
    handshake.replies.drain();
    const parts = [u32(dice.pick([3, 3, 3, 1, 0, 7]))];
    for (let left = dice.below(6); left > 0; left--) parts.push(mutated(dice, anyOption(dice)));
    const bytes = Buffer.concat(parts);
    const told: Buffer[] = [];
    for (let at = 0, taken = 1; at < bytes.length && taken > 0; at += taken) {
      taken = handshake.consume(bytes.subarray(at, at + 1 + dice.below(200)));
      told.push(handshake.replies.drain());
    }
    const replies = Buffer.concat(told);
    for (let at = 0; at < replies.length; at += 20 + replies.readUInt32BE(at + 16)) {
      const option = replies.readUInt32BE(at + 8);
      const type = replies.readUInt32BE(at + 12);
      // ACK of ABORT and STARTTLS, INVALID of STARTTLS, TOO_BIG of too long options.
      const isRight =
        type === 0x8000_0005 ||
        type === 0x8000_0009 ||
        (type === 1 && (option === 2 || option === 5)) ||
        (type === 0x8000_0003 && option === 5);
      assert.ok(isRight, `round ${round} of seed ${seed}: ${option} is answered ${type}`);
    }
    assert.is(handshake.agreement, undefined);
  }
});

test(`sessions from seed ${seed}: other clients are served, and all buffers are freed`, async () => {
  const dice = new Dice(seed ^ 0x5a5a);
  const settings = { connectionsMax: 16, queueDepth: 16, maxIoBytes: 64 << 10 };
  await withServer(
    [ramDisk(SIZE)],
    async (server) => {
      await undisturbed(server, async () => {
        for (let session = 0; session < sessions; session++) {
          const raw = new RawClient(server.socketPath);
          const parts = [u32(3)];
          for (let left = dice.below(3); left > 0; left--)
            parts.push(mutated(dice, anyOption(dice)));
          if (dice.below(8) > 0) {
            const isExtended = dice.below(2) > 0;
            if (isExtended) parts.push(nbdOption(11));
            else if (dice.below(2) > 0) parts.push(nbdOption(8));
            if (dice.below(2) > 0) parts.push(nbdOption(10, SELECTION));
            parts.push(isExtended ? GO : nbdOption(1, Buffer.from("disk")));
            for (let left = dice.below(12); left > 0; left--) {
              parts.push(mutated(dice, anyRequest(dice, isExtended)));
            }
            parts.push(isExtended ? extendedRequest({ type: 2 }, 0n) : request({ type: 2 }));
          }
          raw.send(...parts);
          raw.socket.end();
          // Some read their replies, some disconnect at once.
          if (dice.below(3) > 0) await raw.untilClosed();
          else raw.socket.destroy();
        }
      });
      // More than all buffers at a time.
      const client = await patiently(server.uri("disk"));
      const reads = Array.from({ length: 32 }, () => client.read(0, MIB));
      assert.is((await Promise.all(reads)).length, 32);
      await client.close();
    },
    settings,
  );
});

test.run();
