/** Durable requests: what a target gets for a client's FUA and FLUSH. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NbdClient } from "@blksnap/nbd";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { oddTarget } from "./odd-target.js";
import { MIB, rejectsWith, withFolder, withServer } from "./support.js";

const EIO = 5;
type Options = Omit<Parameters<typeof oddTarget>[0], "kind">;

/** The requests that reach a target with these abilities. */
async function requestsOf(
  abilities: Options,
  use: (client: NbdClient) => Promise<void>,
): Promise<string[]> {
  let lines: string[] = [];
  await withFolder(async (folder) => {
    const requestsPath = join(folder, "requests");
    const target = oddTarget({ kind: "plain", rangeMaxBytes: MIB, requestsPath, ...abilities });
    await withServer([{ name: "disk", readOnly: false, target }], async (server) => {
      const client = await NbdClient.connect(server.uri("disk"));
      await use(client);
      await client.close();
    });
    lines = readFileSync(requestsPath, "utf8").split("\n");
  });
  return lines;
}

async function durably(client: NbdClient): Promise<void> {
  await client.write(0, Buffer.alloc(512));
  await client.write(0, Buffer.alloc(512), { fua: true });
  await client.writeZeroes(0, 512, { fua: true });
  await client.flush();
}

test("a target without durable writes is flushed after each, before the reply", async () => {
  const wanted = ["WRITE", "WRITE", "FLUSH", "WRITE_ZEROES", "FLUSH", "FLUSH"];
  assert.equal(await requestsOf({}, durably), wanted);
});

test("a target with durable writes gets those, and a flush after other durable requests", async () => {
  const wanted = ["WRITE", "WRITE durable", "WRITE_ZEROES", "FLUSH", "FLUSH"];
  assert.equal(await requestsOf({ fua: true }, durably), wanted);
});

test("a target without a volatile cache is never flushed", async () => {
  const wanted = ["WRITE", "WRITE", "WRITE_ZEROES"];
  assert.equal(await requestsOf({ volatileCache: false }, durably), wanted);
});

test("a durable write in several pieces is flushed once, after all of them", async () => {
  const lines = await requestsOf({ capacityBytes: 8 * MIB }, (client) =>
    client.write(0, Buffer.alloc(4 * MIB), { fua: true }),
  );
  assert.ok(lines.length > 2, lines.join());
  assert.is(lines.indexOf("FLUSH"), lines.length - 1);
});

test("if the flush fails, so does the durable write", async () => {
  await requestsOf({ failsFlushes: true }, async (client) => {
    await client.write(0, Buffer.alloc(512));
    const durable = client.write(0, Buffer.alloc(512), { fua: true });
    await rejectsWith(durable, "REQUEST_FAILED", EIO);
    await rejectsWith(client.flush(), "REQUEST_FAILED", EIO);
  });
});

test.run();
