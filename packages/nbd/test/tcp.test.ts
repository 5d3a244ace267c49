/** TCP clients: with TLS, and with violations of it. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { NbdClient, type NbdErrorCode, TcpListener } from "@blksnap/nbd";
import { Dice, eventually, lacksPrograms, nbdOption, testUnless, u32 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { SocketReader } from "../dist/socket-reader.js";
import { oddTarget } from "./odd-target.js";
import { MIB, rejectsWith, request, undisturbed, withFolder } from "./support.js";
import { makeFolders, type Reached, withListener } from "./tcp-support.js";

const ACK = 1;
const TLS_REQD = 0x8000_0005;
const ABORT = 2;
const STARTTLS = 5;

/** A client without TLS that need not obey the protocol. */
class Plain {
  readonly socket;
  readonly reader: SocketReader;
  readonly closed: Promise<void>;

  constructor({ listener }: Reached) {
    this.socket = connect(listener.port, "127.0.0.1");
    this.socket.on("error", () => undefined);
    this.reader = new SocketReader(this.socket);
    this.closed = new Promise((resolve) => this.socket.once("close", () => resolve()));
  }

  async greet(): Promise<void> {
    assert.is((await this.reader.read(18)).toString("latin1", 0, 8), "NBDMAGIC");
    this.socket.write(u32(3));
  }

  /** @returns type of the reply */
  async ask(number: number, data = new Uint8Array(0)): Promise<number> {
    this.socket.write(nbdOption(number, data));
    const header = await this.reader.read(20);
    await this.reader.read(header.readUInt32BE(16));
    assert.is(header.readUInt32BE(8), number);
    return header.readUInt32BE(12);
  }

  async untilClosed(): Promise<void> {
    this.socket.on("readable", () => {
      while (this.socket.read() !== null);
    });
    await this.closed;
  }
}

test("with certificates on both sides everything works as at the socket", () =>
  withListener(4 * MIB, {}, async ({ server, folders, listener, uri }) => {
    const client = await NbdClient.connect(uri(folders.client), { contexts: ["base:allocation"] });
    const bytes = Buffer.from(new Dice(1).bytes(3 * MIB));
    await client.write(MIB / 2, bytes, { fua: true });
    assert.equal(await client.read(MIB / 2, bytes.length), new Uint8Array(bytes));
    assert.equal([...(await client.blockStatus(0, 4 * MIB)).keys()], ["base:allocation"]);
    const local = await NbdClient.connect(server.uri("disk"));
    assert.equal(await local.read(MIB / 2, bytes.length), new Uint8Array(bytes));
    await local.close();
    assert.is(listener.connections, 1);
    await client.close();
    await eventually("the connection ends", () => listener.connections === 0);
    const certificates = folders.client;
    const server_ = { host: "127.0.0.1", port: listener.port, certificates };
    const names = (await NbdClient.list(server_)).map(({ name }) => name);
    assert.equal(names, ["disk", "quiet"]);
    assert.is(listener.refused, 0);
  }));

test("clients without a valid certificate of the CA are refused, and others are served", () =>
  withListener(MIB, {}, async ({ server, folders, listener, refused, uri }) => {
    await undisturbed(server, async () => {
      for (const folder of [folders.anonymous, folders.foreign]) {
        const error = await NbdClient.connect(uri(folder)).catch((reason: unknown) => reason);
        assert.match(String(error), /NbdError/);
        assert.not.match(String(error), /openssl|\n/);
      }
    });
    // A client notices it before it is counted.
    await eventually("both are counted", () => listener.refused === 2);
    await eventually("the first is told of", () => refused.length > 0);
    assert.is(refused[0], "peer did not return a certificate");
    const client = await NbdClient.connect(uri(folders.client));
    await client.close();
  }));

test("without verification any client is served", () =>
  withListener(MIB, { verifiesClients: false }, async ({ folders, uri }) => {
    const client = await NbdClient.connect(uri(folders.anonymous));
    await client.read(0, 4096);
    await client.close();
    await rejectsWith(NbdClient.connect(uri("").replace(/\?.*/, "")), "CONNECT_FAILED");
  }));

test("before TLS clients learn nothing", () =>
  withListener(MIB, {}, async (reached) => {
    const client = new Plain(reached);
    await client.greet();
    const name = Buffer.concat([u32(4), Buffer.from("disk"), Buffer.alloc(2)]);
    for (const [number, data] of [
      [3, undefined],
      [6, name],
      [7, name],
      [8, undefined],
      [10, name],
      [11, undefined],
      [77, Buffer.alloc(1000)],
    ] as const) {
      assert.is(await client.ask(number, data), TLS_REQD, String(number));
    }
    assert.is(await client.ask(STARTTLS, Buffer.alloc(1)), 0x8000_0003);
    assert.is(await client.ask(ABORT), ACK);
    await client.untilClosed();
    const byName = new Plain(reached);
    await byName.greet();
    byName.socket.write(nbdOption(1, Buffer.from("disk")));
    await byName.untilClosed();
    await rejectsWith(
      NbdClient.connect(`nbd://127.0.0.1:${reached.listener.port}/disk`),
      "HANDSHAKE_REFUSED",
    );
  }));

test("bytes between STARTTLS and TLS are ignored", () =>
  withListener(MIB, {}, async (reached) => {
    const client = new Plain(reached);
    await client.greet();
    client.socket.write(Buffer.concat([nbdOption(STARTTLS), nbdOption(8)]));
    await client.untilClosed();
    assert.is(reached.listener.refused, 1);
  }));

test("no TLS after STARTTLS, a flood of options, other protocols: closed, and others are served", () =>
  withListener(MIB, {}, async (reached) => {
    await undisturbed(reached.server, async () => {
      const noTls = new Plain(reached);
      await noTls.greet();
      assert.is(await noTls.ask(STARTTLS), ACK);
      noTls.socket.write("GET / HTTP/1.1\r\n\r\n");
      await noTls.untilClosed();
      const flood = new Plain(reached);
      await flood.greet();
      flood.socket.write(Buffer.concat(Array.from({ length: 300 }, () => nbdOption(3))));
      await flood.untilClosed();
      const http = new Plain(reached);
      http.socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      await http.untilClosed();
    });
    assert.is(reached.listener.refused, 3);
  }));

test("silent clients are disconnected, before and during TLS", () =>
  withListener(MIB, { handshakeTimeoutMs: 100 }, async (reached) => {
    await new Plain(reached).untilClosed();
    const half = new Plain(reached);
    half.socket.write(Buffer.concat([u32(3), nbdOption(STARTTLS)]));
    await half.untilClosed();
    await eventually("nothing is left", () => reached.listener.connections === 0);
    assert.is(reached.listener.refused, 2);
  }));

test("of hundreds of clients at once, those beyond the limit are closed, and earlier ones are served", () =>
  withListener(MIB, { connectionsMax: 8 }, async (reached) => {
    const { folders, listener, uri } = reached;
    const client = await NbdClient.connect(uri(folders.client));
    const crowd = Array.from({ length: 300 }, () => new Plain(reached));
    await Promise.race(crowd.map((one) => one.closed));
    await client.write(0, Buffer.alloc(MIB, 7));
    assert.equal(await client.read(0, MIB), new Uint8Array(MIB).fill(7));
    for (const one of crowd) one.socket.destroy();
    await eventually("they are gone", () => listener.connections === 1);
    const other = await NbdClient.connect(uri(folders.client));
    await other.close();
    await client.close();
  }));

test("a client with long replies delays no other", () =>
  withListener(8 * MIB, {}, async (reached) => {
    const { folders, server, uri } = reached;
    const slow = await NbdClient.connect(uri(folders.client));
    await undisturbed(server, async () => {
      const reads = Array.from({ length: 64 }, () => slow.read(0, 8 * MIB));
      const ends = Promise.allSettled(reads);
      const quick = await NbdClient.connect(uri(folders.client));
      for (let index = 0; index < 8; index++) await quick.read(index * MIB, MIB);
      await quick.close();
      await reached.listener.close();
      assert.ok((await ends).length === 64);
    });
  }));

async function openFails(
  code: NbdErrorCode,
  options: { address?: string; port?: number; certificates: string | null },
): Promise<void> {
  const onClient = (): void => assert.unreachable();
  const opening = TcpListener.open({ address: "127.0.0.1", port: 0, onClient, ...options });
  await rejectsWith(opening, code);
}

test("an address opens without TLS only at loopback, and with TLS only with usable certificates", () =>
  withFolder(async (folder) => {
    const { server, client, late, mixed } = makeFolders(folder);
    await openFails("NOT_SECURE", { address: "0.0.0.0", certificates: null });
    await openFails("NOT_SECURE", { address: "::", certificates: null });
    await openFails("NOT_SECURE", { address: "192.0.2.1", certificates: null });
    await openFails("LISTEN_FAILED", { address: "localhost", certificates: null });
    await openFails("LISTEN_FAILED", { address: "192.0.2.1", certificates: server });
    await openFails("LISTEN_FAILED", { port: 65_536, certificates: server });
    for (const certificates of [folder, client, late, mixed]) {
      await openFails("CERTIFICATES_UNUSABLE", { certificates });
    }
  }));

test("at loopback clients are served without TLS", () =>
  withListener(MIB, { certificates: null }, async ({ listener, folders, uri }) => {
    const client = await NbdClient.connect(`nbd://127.0.0.1:${listener.port}/disk`);
    await client.write(0, Buffer.alloc(4096, 3));
    await client.close();
    await rejectsWith(NbdClient.connect(uri(folders.client)), "HANDSHAKE_REFUSED");
  }));

test("a client that disconnects during TLS is dropped at once", () =>
  withListener(MIB, { handshakeTimeoutMs: 600_000 }, async (reached) => {
    const half = new Plain(reached);
    await half.greet();
    assert.is(await half.ask(STARTTLS), ACK);
    half.socket.end();
    await eventually("nothing is left", () => reached.listener.connections === 0);
  }));

test("pending requests get replies when a listener is closed", () =>
  withFolder(async (folder) => {
    const kept = { name: "kept", readOnly: false, target: oddTarget({ kind: "kept", folder }) };
    const have = join(folder, "have");
    await withListener(
      MIB,
      { endTimeoutMs: 600_000 },
      async ({ listener, folders, uri }) => {
        const idle = await NbdClient.connect(uri(folders.client));
        const client = await NbdClient.connect(uri(folders.client).replace("/disk", "/kept"));
        const asked = [client.read(0, 65_536), client.write(4096, Buffer.alloc(4096))];
        const isThere = () => existsSync(have) && readFileSync(have, "utf8") === "2";
        await eventually("both are there", isThere);
        const closing = listener.close();
        // A client without pending requests learns of it at once.
        await eventually("one is left", () => listener.connections === 1);
        writeFileSync(join(folder, "release"), "");
        await Promise.all([...asked, closing]);
        for (const one of [idle, client]) await rejectsWith(one.read(0, 512), "CONNECTION_LOST");
      },
      [kept],
    );
  }));

test("a client that does not read does not delay the end of a listener", () =>
  withListener(8 * MIB, { endTimeoutMs: 50, certificates: null }, async (reached) => {
    const deaf = new Plain(reached);
    await deaf.greet();
    deaf.socket.write(nbdOption(1, Buffer.from("disk")));
    await deaf.reader.read(10);
    deaf.socket.pause();
    const reads = Array.from({ length: 64 }, () => request({ type: 0, length: 8 * MIB }));
    deaf.socket.write(Buffer.concat(reads));
    await reached.listener.close();
    deaf.socket.destroy();
  }));

test("a closed listener ends its connections, and leaves no descriptor", async () => {
  const open = (): number => readdirSync("/proc/self/fd").length;
  const before = open();
  await withListener(MIB, {}, async ({ listener, folders, uri }) => {
    const clients = [];
    for (let index = 0; index < 3; index++) {
      clients.push(await NbdClient.connect(uri(folders.client)));
    }
    await Promise.all([listener.close(), listener.close()]);
    assert.is(await listener.ended, undefined);
    for (const client of clients) await rejectsWith(client.read(0, 4096), "CONNECTION_LOST");
    await rejectsWith(NbdClient.connect(uri(folders.client)), "CONNECT_FAILED");
  });
  await eventually("all descriptors are closed", () => open() <= before);
});

const run = promisify(execFile);

const foreign = testUnless(test, lacksPrograms("nbdinfo", "qemu-img"));

foreign("libnbd and QEMU come with TLS, and not without a certificate", () =>
  withListener(4 * MIB, {}, async ({ listener, folders, uri }) => {
    const mine = uri(folders.client);
    const copy = join(folders.client, "copy");
    const client = await NbdClient.connect(mine);
    const bytes = Buffer.from(new Dice(2).bytes(4 * MIB));
    await client.write(0, bytes);
    await client.close();
    const info = await run("nbdinfo", [mine]);
    assert.match(info.stdout, /newstyle-fixed with TLS/);
    await run("nbdcopy", [mine, copy]);
    assert.ok(readFileSync(copy).equals(bytes));
    const credentials = (folder: string): string[] => [
      "--object",
      `tls-creds-x509,id=t,endpoint=client,dir=${folder}`,
    ];
    const at = `driver=nbd,host=localhost,port=${listener.port},export=disk,tls-creds=t`;
    const convert = ["convert", ...credentials(folders.client), "--image-opts", at];
    await run("qemu-img", [...convert, "-O", "raw", copy]);
    assert.ok(readFileSync(copy).equals(bytes));
    const where = ["-b", "localhost", "-p", String(listener.port)];
    const list = ["--list", "--tls-creds", "t", ...where];
    const listed = await run("qemu-nbd", [...credentials(folders.client), ...list]);
    assert.match(listed.stdout, /export: 'disk'/);
    assert.is(listener.refused, 0);
    for (const [program, words] of [
      ["nbdinfo", [uri(folders.anonymous)]],
      ["nbdinfo", [uri(folders.expired)]],
      ["nbdinfo", [`nbd://localhost:${listener.port}/disk`]],
      ["qemu-nbd", [...credentials(folders.foreign), ...list]],
    ] as const) {
      const refused = await run(program, [...words]).then(
        () => false,
        () => true,
      );
      assert.ok(refused, `${program} ${words.join(" ")}`);
    }
  }),
);

test.run();
