/** Interoperability of extended headers with QEMU, which has them since 8.2: the only foreign program that Debian has. */
import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { BASE_ALLOCATION, NbdClient, type NbdServer } from "@blksnap/nbd";
import { eventually, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { lacksExtendedQemu, qemuProgram } from "./newer-qemu.js";
import { oddTarget } from "./odd-target.js";
import { MIB, withFolder, withServer } from "./support.js";

const run = promisify(execFile);
const GIB = 2 ** 30;
const SIZE = 6 * GIB;
const EXTENDED_REQUEST = 0x21e41c71;
const TRIM = 4;
const ZEROES = 6;
const STATUS = 7;
/** qemu-io takes no more. */
const QEMU_IO_MAX = 2 * GIB - 512;
const BITMAP = "qemu:dirty-bitmap:b0";

async function output(program: string, ...words: string[]): Promise<string> {
  const { stdout } = await run(qemuProgram(program), words, { timeout: 120_000 });
  return stdout;
}

interface Tap {
  readonly path: string;
  /** Requests with extended headers that have passed, by type. */
  readonly requests: Map<number, bigint[]>;
  close(): void;
}

/** A socket in front of the server's that notes the lengths of extended requests without a payload. */
async function tapOn({ socketPath }: NbdServer): Promise<Tap> {
  const path = `${socketPath}.tap`;
  const requests = new Map<number, bigint[]>();
  const listener = createServer((client) => {
    const server = connect(socketPath);
    for (const socket of [client, server]) socket.on("error", () => undefined);
    client.on("data", (bytes) => {
      // A client that waits for each reply sends one request at a time.
      const at = bytes.length - 32;
      if (at < 0 || bytes.readUInt32BE(at) !== EXTENDED_REQUEST) return;
      const type = bytes.readUInt16BE(at + 6);
      requests.set(type, [...(requests.get(type) ?? []), bytes.readBigUInt64BE(at + 24)]);
    });
    client.pipe(server).pipe(client);
  });
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  return { path, requests, close: () => listener.close() };
}

const foreign = testUnless(test, lacksExtendedQemu());

foreign(
  "QEMU's client asks for the status of 6 GiB at once, and zeroes and trims with extended headers",
  () =>
    withFolder(async (folder) => {
      const closedPath = join(folder, "closed");
      const target = oddTarget({
        kind: "plain",
        capacityBytes: SIZE,
        closedPath,
        rangeMaxBytes: 700 * MIB,
      });
      const contexts = [
        {
          name: BASE_ALLOCATION,
          extents: [
            { lengthBytes: 5 * GIB, flags: 0 },
            { lengthBytes: GIB, flags: 3 },
          ],
        },
        {
          name: BITMAP,
          extents: [
            { lengthBytes: 5 * GIB, flags: 1 },
            { lengthBytes: GIB, flags: 0 },
          ],
        },
      ];
      await withServer([{ name: "disk", readOnly: false, target, contexts }], async (server) => {
        const tap = await tapOn(server);
        try {
          const place = `driver=nbd,export=disk,server.type=unix,server.path=${tap.path}`;
          const mapOf = async (image: string): Promise<[number, number, boolean][]> => {
            const json = await output("qemu-img", "map", "--output=json", "--image-opts", image);
            const found = JSON.parse(json) as { start: number; length: number; data: boolean }[];
            return found.map(({ start, length, data }) => [start, length, data]);
          };
          const halves = (data: boolean): unknown => [
            [0, 5 * GIB, data],
            [5 * GIB, GIB, !data],
          ];
          assert.equal(await mapOf(place), halves(true));
          // QEMU reports changed blocks as "no data".
          assert.equal(await mapOf(`${place},x-dirty-bitmap=${BITMAP}`), halves(false));
          const { requests } = tap;
          assert.ok(requests.get(STATUS)!.includes(BigInt(SIZE)), "status of all in one request");
          requests.clear();
          const commands = [`write -z -u 0 ${QEMU_IO_MAX}`, `discard 512 ${QEMU_IO_MAX}`, "flush"];
          const words = commands.flatMap((command) => ["-c", command]);
          const said = await output("qemu-io", "-d", "unmap", "--image-opts", ...words, place);
          assert.not.match(said, /error|failed/i);
          for (const type of [TRIM, ZEROES]) {
            assert.ok(requests.get(type)!.includes(BigInt(QEMU_IO_MAX)), `command ${type}`);
          }
        } finally {
          tap.close();
        }
      });
      assert.is(readFileSync(closedPath, "utf8"), `${QEMU_IO_MAX} ${QEMU_IO_MAX}`);
    }),
);

/** Runs `use` while qemu-nbd serves the file as "disk". */
async function withQemuNbd(
  words: readonly string[],
  use: (uri: string) => Promise<void>,
): Promise<void> {
  const socketPath = join(dirname(words.at(-1)!), "qemu.sock");
  const more = ["-t", "-e", "4", "-k", socketPath, "-x", "disk", "--discard=unmap"];
  const server = spawn(qemuProgram("qemu-nbd"), [...more, ...words], { stdio: "inherit" });
  const ended = new Promise((resolve) => server.once("exit", resolve));
  try {
    await eventually("qemu-nbd serves", () => existsSync(socketPath));
    await use(`nbd+unix:///disk?socket=${socketPath}`);
  } finally {
    server.kill("SIGKILL");
    await ended;
  }
}

foreign("the client uses the extended headers of QEMU's server for all commands", () =>
  withFolder(async (folder) => {
    const file = join(folder, "raw");
    writeFileSync(file, "");
    truncateSync(file, SIZE);
    await withQemuNbd(["-f", "raw", file], async (uri) => {
      const client = await NbdClient.connect(uri, { contexts: [BASE_ALLOCATION] });
      assert.ok(client.hasExtendedHeaders);
      const statusOf = async () =>
        (await client.blockStatus(0, SIZE))
          .get(BASE_ALLOCATION)!
          .map((extent) => extent.lengthBytes);
      assert.equal(await statusOf(), [SIZE], "in one extent");
      const bytes = Buffer.alloc(3 * MIB, "extended");
      await client.write(5 * GIB, bytes, { fua: true });
      assert.ok(bytes.equals(await client.read(5 * GIB, bytes.length)));
      assert.equal(await statusOf(), [5 * GIB, 3 * MIB, GIB - 3 * MIB]);
      await client.writeZeroes(MIB, SIZE - 2 * MIB);
      assert.ok(Buffer.alloc(4096).equals(await client.read(5 * GIB, 4096)));
      await client.write(0, bytes);
      await client.trim(0, SIZE);
      await client.flush();
      assert.equal(await statusOf(), [SIZE]);
      await client.close();
    });
  }),
);

foreign("the client reads QEMU's bitmaps, and its errors, with extended headers", () =>
  withFolder(async (folder) => {
    const file = join(folder, "qcow2");
    await output("qemu-img", "create", "-q", "-f", "qcow2", file, String(SIZE));
    await output("qemu-img", "bitmap", "--add", file, "b0");
    await output("qemu-io", "-f", "qcow2", "-c", "write -P 7 5G 1M", file);
    await withQemuNbd(["-r", "-f", "qcow2", "-B", "b0", file], async (uri) => {
      const client = await NbdClient.connect(uri, { contexts: [BITMAP] });
      assert.ok(client.hasExtendedHeaders);
      const dirty = [];
      for await (const { offsetBytes, lengthBytes, flags } of client.extents(BITMAP)) {
        if (flags !== 0) dirty.push([offsetBytes, lengthBytes]);
      }
      assert.equal(dirty, [[5 * GIB, MIB]]);
      assert.ok(Buffer.alloc(MIB, 7).equals(await client.read(5 * GIB, MIB)));
      await client.close();
    });
  }),
);

test.run();
