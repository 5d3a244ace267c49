/**
 * The end of a daemon with `--keep` does not wait for NBD clients: some read, some are idle, and some do not read the
 * replies that they have requested.
 */
import { connect, type NetConnectOpts } from "node:net";
import { NbdClient, parseNbdUri } from "@blksnap/nbd";
import { Dice, nbdOption, u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CAPACITY_BYTES, detachedSoon, MIB, text, User } from "./nbd-user.js";

/** More than sockets buffer. */
const DEAF_READS = 64;

/** Requests far more than a socket buffers, and reads nothing. Resolves when its connection ends. */
function deafReader(where: NetConnectOpts, exportName: string): Promise<unknown> {
  const socket = connect(where);
  const name = Buffer.from(exportName);
  const read = Buffer.concat([u32(0x25609513, 0, 0, 1, 0, 0), u32(MIB)]);
  const handshake = [u32(3), nbdOption(1, name)];
  socket.on("error", () => undefined).pause();
  socket.write(Buffer.concat([...handshake, ...Array.from({ length: DEAF_READS }, () => read)]));
  // A write notices the end, too.
  const timer = setInterval(() => socket.write(read), 100);
  return new Promise((resolve) => socket.once("close", resolve)).finally(() => {
    clearInterval(timer);
    socket.destroy();
  });
}

/** At a free port. */
async function portOf(user: User): Promise<number> {
  const dice = new Dice(process.pid);
  for (;;) {
    // Below the ports that the kernel gives to connections.
    const port = 20_000 + dice.below(12_000);
    const request = { address: "127.0.0.1", port, insecure: true };
    const { code } = await user.ask("POST", "/v1/nbd/listeners", request);
    if (code === undefined) return port;
    assert.is(code, "NBD_LISTEN_FAILED");
  }
}

async function persistentOf(user: User): Promise<Readonly<Record<string, unknown>>> {
  const status = (await user.ask("GET", "/v1/status")) as unknown as {
    trackers: { persistence: unknown; cbt: { generation_id: string } }[];
  };
  const [tracker] = status.trackers;
  assert.ok(tracker !== undefined);
  return { persistence: tracker.persistence, generation: tracker.cbt.generation_id };
}

async function endsWithClients(user: User): Promise<void> {
  await user.serve("--keep");
  const wish = { device: user.disk, persistent: true };
  const front = text(await user.ask("POST", "/v1/trackers", wish), "front");
  const before = await persistentOf(user);
  assert.equal(before["persistence"], { state: "on", why: null });
  const { socketPath, exportName } = parseNbdUri(front) as {
    socketPath: string;
    exportName: string;
  };
  const port = await portOf(user);
  const byTcp = `nbd://127.0.0.1:${port}/${exportName}`;
  const clients = await Promise.all(
    [front, front, byTcp, byTcp].map((uri) => NbdClient.connect(uri)),
  );
  const [, reader, , readerByTcp] = clients;
  const deaf = [
    deafReader({ path: socketPath }, exportName),
    deafReader({ host: "127.0.0.1", port }, exportName),
  ];
  const reads = [reader!, readerByTcp!].flatMap((client) =>
    Array.from({ length: CAPACITY_BYTES / MIB }, (_, at) => client.read(at * MIB, MIB)),
  );
  const settled = Promise.allSettled(reads);
  await Promise.race(reads);
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
  await settled;
  await Promise.all(deaf);
  for (const client of clients) {
    const error = await client.read(0, 4096).catch((thrown: unknown) => thrown);
    assert.is((error as { code?: string }).code, "CONNECTION_LOST");
    await client.close();
  }

  await user.serve();
  assert.equal(await persistentOf(user), before, "the map continues");
  const device = encodeURIComponent(user.disk);
  await detachedSoon(user, `${device}&forget=true`);
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

test("a daemon with NBD clients ends in order, and the next one has its fronts", async () => {
  const user = new User();
  try {
    await endsWithClients(user);
  } finally {
    await user.close();
  }
});

test.run();
