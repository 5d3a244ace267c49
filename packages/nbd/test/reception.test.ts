/** Handshakes for servers on other threads. */
import { openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { NbdClient, Reception, transmissionFlags } from "@blksnap/nbd";
import { eventually } from "@blksnap/testing";
import { listenLocal } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { nbdUri } from "../dist/uri.js";
import { MIB, rejectsWith, withFolder } from "./support.js";

const DISK = {
  name: "image/1/disk",
  description: "",
  sizeBytes: MIB,
  blockBytes: 512,
  preferredBlockBytes: 4096,
  flags: transmissionFlags({ readOnly: true, rotational: false, trims: false }),
  contexts: [{ name: "base:allocation" }, { name: "qemu:dirty-bitmap:since-2" }],
};

interface Served {
  readonly name: string;
  readonly contexts: readonly string[];
}

async function withReception(
  limits: { handshakesMax?: number; handshakeTimeoutMs?: number },
  use: (path: string, served: Served[]) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, "s");
    const errors: unknown[] = [];
    const served: Served[] = [];
    const reception = new Reception({
      listenFd: listenLocal(path, 0o600),
      exports: {
        find: (name) => (name === DISK.name ? DISK : undefined),
        all: () => [DISK],
      },
      serve: async (_, { export: { name }, contexts }) => {
        served.push({ name, contexts: contexts.map((one) => one.name) });
        return false;
      },
      onError: (error) => errors.push(error),
      ...limits,
    });
    await use(path, served);
    await reception.close();
    assert.equal(errors, []);
  });
}

function ended(socket: Socket): Promise<void> {
  return new Promise((done) => {
    socket.once("close", () => done());
    socket.resume();
  });
}

test("a failure to accept connections is reported by name", async () => {
  const errors: Error[] = [];
  const reception = new Reception({
    listenFd: openSync("/dev/null", "r"),
    exports: { find: () => undefined, all: () => [] },
    serve: async () => false,
    onError: (error) => errors.push(error as Error),
  });
  await eventually("it is told", () => errors.length > 0);
  await reception.close();
  assert.is(errors[0]?.message, "a connection cannot be accepted: ENOTSOCK");
});

test("a finished handshake reaches its export, and one without an export is closed", () =>
  withReception({}, async (path, served) => {
    const uri = nbdUri(path, DISK.name);
    assert.match(uri, "///image/1/disk?");
    const contexts = ["qemu:dirty-bitmap:since-2"];
    const client = await NbdClient.connect(uri, { contexts });
    await rejectsWith(client.read(0, 4096), "CONNECTION_LOST");
    assert.equal(served, [{ name: DISK.name, contexts }]);
    await rejectsWith(NbdClient.connect(nbdUri(path, "other")), "EXPORT_UNKNOWN");
  }));

test("a stalled handshake is closed", () =>
  withReception({ handshakeTimeoutMs: 50 }, async (path) => {
    await ended(connect(path));
  }));

test("handshakes beyond the limit are closed at once, and a new one is accepted when another has ended", () =>
  withReception({ handshakesMax: 1 }, async (path) => {
    const first = connect(path);
    await new Promise((done) => first.once("data", done));
    await ended(connect(path));
    first.destroy();
    await eventually("there is room again", async () => {
      const next = connect(path);
      const isGreeted = await new Promise((done) => {
        next.once("data", () => done(true));
        next.once("close", () => done(false));
      });
      next.destroy();
      return isGreeted === true;
    });
  }));

test("a reception ends while handshakes are in progress", () =>
  withReception({}, async (path) => {
    const socket = connect(path);
    await new Promise((done) => socket.once("data", done));
    void ended(socket);
  }));

test.run();
