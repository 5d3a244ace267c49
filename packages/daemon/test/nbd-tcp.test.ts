/** TCP clients of blksnapd: with certificates, without, and across deaths of daemons. */
import { join } from "node:path";
import { NbdClient } from "@blksnap/nbd";
import { certificateFolder, certify, Dice } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { detachedSoon, MIB, text, User } from "./nbd-user.js";

const OLD = Buffer.alloc(MIB, 0x11);
const NEW = Buffer.alloc(MIB, 0x22);

type ByTcp = Readonly<Record<string, unknown>> & { readonly port: number };

/** At a free port. */
async function openByTcp(user: User, how: object): Promise<ByTcp> {
  const dice = new Dice(process.pid);
  for (;;) {
    // Below the ports that the kernel gives to connections.
    const request = { address: "127.0.0.1", port: 20_000 + dice.below(12_000), ...how };
    const answer = await user.ask("POST", "/v1/nbd/listeners", request);
    if (answer.code === undefined) return answer as unknown as ByTcp;
    assert.is(answer.code, "NBD_LISTEN_FAILED", JSON.stringify(answer));
  }
}

async function listenersOf(user: User): Promise<ByTcp[]> {
  return ((await user.ask("GET", "/v1/status")) as unknown as { nbd_listeners: ByTcp[] })
    .nbd_listeners;
}

async function closeByTcp(user: User, port: number): Promise<string | undefined> {
  return (await user.ask("DELETE", `/v1/nbd/listeners?address=127.0.0.1&port=${port}`)).code;
}

async function comesByTcp(user: User): Promise<void> {
  const ca = certify("a CA");
  const certificates = certificateFolder(join(user.folder, "tls"), ca, {
    server: certify("a server", ca),
    client: certify("a client", ca),
  });
  const none = certificateFolder(join(user.folder, "none"), ca, {});
  await user.serve();
  const front = text(await user.ask("POST", "/v1/trackers", { device: user.disk }), "front");
  const name = new URL(front).pathname;
  const reading = await openByTcp(user, { certificates });
  const uri = (port: number, of: string): string =>
    `nbds://localhost:${port}${name}?tls-certificates=${of}`;
  const reader = await NbdClient.connect(uri(reading.port, certificates));
  assert.ok(reader.readOnly);
  await assertRefused(reader.write(0, OLD), "REQUEST_FAILED");
  await assertRefused(NbdClient.connect(uri(reading.port, none)));
  const writing = await openByTcp(user, { certificates, writable: true });
  const writer = await NbdClient.connect(uri(writing.port, certificates));
  await writer.write(MIB, NEW);
  assert.ok(Buffer.from(await reader.read(MIB, MIB)).equals(NEW));
  const [first, second] = await listenersOf(user);
  assert.equal([first?.["connections"], first?.["refused"], first?.["writable"]], [1, 1, false]);
  assert.equal([second?.port, second?.["configured"]], [writing.port, false]);
  assert.is(await closeByTcp(user, reading.port), undefined);
  await assertRefused(reader.read(0, 4096), "CONNECTION_LOST");
  assert.ok(Buffer.from(await writer.read(MIB, MIB)).equals(NEW), "others stay");
  await writer.close();
  assert.is(await closeByTcp(user, reading.port), "NBD_LISTENER_NOT_FOUND");

  // Addresses of commands end with their daemon; each daemon opens configured ones, also after a crash.
  const port = String(reading.port);
  const options = [`--nbd-listen=127.0.0.1:${port}`, `--nbd-tls-certs=${certificates}`];
  for (let times = 0; times < 2; times++) {
    await user.end("SIGKILL");
    await user.serve(...options);
    const now = (await listenersOf(user)).map((one) => [one.port, one["configured"], one["why"]]);
    assert.equal(now, [[reading.port, true, null]]);
  }
  const last = await NbdClient.connect(uri(reading.port, certificates));
  await last.close();
  await detachedSoon(user, encodeURIComponent(user.disk));
  assert.is(await user.end("SIGTERM"), 0, user.stderr);
}

async function assertRefused(promise: Promise<unknown>, code?: string): Promise<void> {
  const error = await promise.then(
    () => undefined,
    (reason: { code: string }) => reason,
  );
  assert.ok(error !== undefined && (code === undefined || error.code === code), error?.code);
}

test("clients with a certificate read by TCP with TLS", async () => {
  const user = new User();
  try {
    await comesByTcp(user);
  } finally {
    await user.close();
  }
});

test("without TLS, or with invalid certificates, no address is opened", async () => {
  const user = new User();
  try {
    await user.serve("--nbd-listen=192.0.2.1", "--nbd-insecure");
    const [waits] = await listenersOf(user);
    assert.is(waits?.["open"], false);
    assert.match(String(waits?.["why"]), "that address is not loopback");
    const open = async (how: object): Promise<string | undefined> =>
      (await user.ask("POST", "/v1/nbd/listeners", { address: "127.0.0.1", port: 20_001, ...how }))
        .code;
    assert.is(await open({}), "NBD_NOT_SECURE");
    assert.is(await open({ address: "0.0.0.0", insecure: true }), "NBD_NOT_SECURE");
    assert.is(await open({ insecure: true, any_client: true }), "NBD_NOT_SECURE");
    assert.is(await open({ certificates: user.folder }), "NBD_CERTIFICATES_UNUSABLE");
    assert.is(await open({ address: "192.0.2.1", insecure: true }), "NBD_NOT_SECURE");
    assert.is(await open({ port: 0, insecure: true }), "REQUEST_INVALID");
    assert.is(await open({ address: "localhost", insecure: true }), "REQUEST_INVALID");
    await user.end("SIGTERM");
  } finally {
    await user.close();
  }
});

test.run();
