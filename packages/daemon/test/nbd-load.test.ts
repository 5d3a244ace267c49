/**
 * Fronts and images of blksnapd --frontend nbd under fio, which verifies what it writes, while strangers send what is no
 * protocol to the same socket.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { NbdClient } from "@blksnap/nbd";
import { Dice, lacksPrograms, nbdOption, testUnless, u32 } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { CAPACITY_BYTES, contentOf, detachedSoon, MIB, text, User } from "./nbd-user.js";

const test = suite("--frontend nbd under load");
const withFio = testUnless(test, lacksPrograms("fio"));
const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const STRANGERS = 1000;
/** Of them at a time: a socket's backlog is finite. */
const AT_ONCE = 50;
const FLOOD_OPTIONS = 2000;

const NO_DATA = new Uint8Array(0);

/** Of a client that is no client: nothing, no words, options without an end, and lengths without data. */
const SPEECHES: readonly ((dice: Dice) => Buffer)[] = [
  () => Buffer.alloc(0),
  (dice) => dice.bytes(1 + dice.below(200)),
  () => Buffer.concat([u32(3), ...Array(FLOOD_OPTIONS).fill(nbdOption(3))]),
  () => Buffer.concat([u32(3), nbdOption(7, NO_DATA, 0xffff_ffff)]),
  () => Buffer.concat([u32(3), nbdOption(99), nbdOption(8), nbdOption(2)]),
];

/** Speaks, reads nothing, and leaves. @returns whether it was let in */
async function strange(socketPath: string, dice: Dice): Promise<boolean> {
  const socket = connect(socketPath).on("error", () => undefined);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  // Where the socket's backlog is full the connection fails at once.
  const isOpen = await Promise.race([
    new Promise((resolve) => socket.once("connect", () => resolve(true))),
    closed.then(() => false),
  ]);
  if (!isOpen) return false;
  socket.pause();
  socket.write(dice.pick([...SPEECHES])(dice));
  if (dice.below(2) === 0) await sleep(dice.below(20));
  socket.destroy();
  await closed;
  return true;
}

async function strangers(socketPath: string, isOver: () => boolean): Promise<number> {
  const dice = new Dice(seed);
  let count = 0;
  while (count < STRANGERS || !isOver()) {
    const one = (): Promise<boolean> => strange(socketPath, dice);
    const areIn = await Promise.all(Array.from({ length: AT_ONCE }, one));
    count += areIn.filter(Boolean).length;
  }
  return count;
}

/** Random writes of the whole export in all sizes, each read again and verified. */
async function verified(uri: string): Promise<void> {
  const options = [
    ...["--name=verified", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--iodepth=16"],
    ...["--bsrange=4k-64k", `--size=${CAPACITY_BYTES}`, "--verify=crc32c", "--verify_fatal=1"],
    ...[`--randseed=${seed}`, "--thread=1", "--output-format=terse", "--verify_state_save=0"],
  ];
  const fio = spawn("fio", options, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [fio.stdout, fio.stderr]) {
    stream.on("data", (part) => {
      output += part;
    });
  }
  const [status] = (await once(fio, "exit")) as [number | null];
  assert.is(status, 0, output);
}

async function filled(uri: string): Promise<Buffer> {
  const content = Buffer.alloc(CAPACITY_BYTES, new Dice(seed).bytes(4093));
  const client = await NbdClient.connect(uri);
  for (let at = 0; at < CAPACITY_BYTES; at += MIB)
    await client.write(at, content.subarray(at, at + MIB));
  await client.flush();
  await client.close();
  return content;
}

async function livesWithStrangers(user: User): Promise<void> {
  console.log(`SEED=${seed}`);
  await user.serve();
  const front = text(await user.ask("POST", "/v1/trackers", { device: user.disk }), "front");
  const before = await filled(front);
  const stores = { stores: [user.store], limit_bytes: 64 * MIB, read_only_images: false };
  const created = await user.ask("POST", "/v1/snapshots", { devices: [user.disk], ...stores });
  const snapshot = `/v1/snapshots/${text(created, "id")}`;
  assert.is((await user.ask("POST", `${snapshot}/take`)).code, undefined);
  const device = encodeURIComponent(user.disk);
  const image = text(await user.ask("GET", `/v1/trackers/snapshot?device=${device}`), "image");

  let isOver = false;
  const socketPath = join(user.runtime, "blksnap", "nbd.sock");
  const others = strangers(socketPath, () => isOver);
  await verified(front).finally(() => {
    isOver = true;
  });
  assert.ok((await others) >= STRANGERS);
  assert.ok((await contentOf(image)).equals(before), "the image shows the instant of the take");
  const after = await contentOf(front);
  assert.not.ok(after.equals(before));
  await verified(image);
  assert.ok((await contentOf(front)).equals(after), "writes of an image stay in it");

  assert.is((await user.ask("DELETE", snapshot)).code, undefined);
  await detachedSoon(user, device);
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

withFio(
  "fio verifies a front in a snapshot, and a writable image, beside a thousand strangers",
  async () => {
    const user = new User();
    try {
      await livesWithStrangers(user);
    } finally {
      await user.close();
    }
  },
);

test.run();
