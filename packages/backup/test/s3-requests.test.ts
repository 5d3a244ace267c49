/** Requests to an object store that fail, are refused, or are abandoned. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage } from "../dist/care.js";
import { exportToStore } from "../dist/export-store.js";
import { BackupStore } from "../dist/store.js";
import { failureOf, MIB } from "./fake-machine.js";
import { LIMITS, optionsOf, place, withS3 } from "./s3-place.js";

test("a request in flight at an interruption is soon abandoned", () =>
  withS3(async (s3) => {
    const interruption = new AbortController();
    s3.faultOf = () => {
      interruption.abort();
      return "never";
    };
    const limits = { ...LIMITS, answerMs: 3_600_000, interruptedMs: 1 };
    const opened = BackupStore.open(place(s3, { limits, signal: interruption.signal }));
    assert.match((await failureOf(opened)).message, /does not answer in time$/);
  }));

test("requests from before the machine slept are not retried after it", () =>
  withS3(async (s3) => {
    const { now } = Date;
    s3.faultOf = () => {
      Date.now = () => now() + 11 * 60_000;
      return "tear";
    };
    try {
      assert.is((await failureOf(BackupStore.open(place(s3)))).code, "TARGET_FAILED");
      assert.is(s3.log.length, 1);
    } finally {
      Date.now = now;
    }
  }));

test("lasting failures are reported in one line, temporary ones are not", () =>
  withS3(async (s3) => {
    for (const [faults, wanted] of [
      [2, []],
      [5, ["503 SlowDown"]],
    ] as const) {
      const notes: string[] = [];
      let left: number = faults;
      s3.faultOf = () => (left-- > 0 ? { status: 503, code: "SlowDown" } : undefined);
      await BackupStore.openOrCreate(place(s3, { onNote: (text) => notes.push(text) }));
      assert.is(notes.length, wanted.length);
      for (const [index, text] of wanted.entries()) assert.match(notes[index]!, text);
    }
  }));

test("a response without length and end is abandoned", () =>
  withS3(async (s3) => {
    const server = createServer((_, response) => {
      const timer = setInterval(() => response.write(Buffer.alloc(65_536)));
      response.on("close", () => clearInterval(timer));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const limits = { ...LIMITS, attempts: 1, contentMaxBytes: 2 ** 20 };
    const endpoint = `http://127.0.0.1:${port}`;
    const error = await failureOf(BackupStore.open(place(s3, { endpoint, limits })));
    assert.match(error.message, `the server sends more than ${2 ** 20} bytes`);
    server.closeAllConnections();
    server.close();
  }));

test("permanent failures are not retried", () =>
  withS3(async (s3) => {
    const port = new URL(s3.endpoint).port;
    for (const endpoint of [`https://127.0.0.1:${port}`, "http://127.0.0.1:1"]) {
      const error = await failureOf(BackupStore.open(place(s3, { endpoint })));
      assert.is(error.code, "TARGET_FAILED");
      assert.not.match(error.message, /times/);
    }
  }));

test("credentials that no header can carry are not sent, and not shown", () =>
  withS3(async (s3) => {
    for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]) {
      const environment = { ...s3.environment, [name]: "geheim\nnis" };
      const error = await failureOf(Promise.resolve().then(() => place(s3, { environment })));
      assert.is(error.code, "USAGE");
      assert.not.match(`${error.message} ${error.stack}`, /geheim/);
    }
  }));

test("refusals say what to check, even without content", () =>
  withS3(async (s3) => {
    const hintFor = async (status: number, code: string): Promise<string> => {
      s3.faultOf = () => ({ status, code });
      const error = (await failureOf(BackupStore.open(place(s3)))) as { hint?: string };
      return error.hint!;
    };
    assert.match(await hintFor(400, "ExpiredToken"), /Renew the credentials/);
    assert.match(await hintFor(403, ""), /credentials have expired/);
  }));

test("a 404 page means neither a missing store nor a removed point", () =>
  withS3(async (s3, machine) => {
    machine.write(0, randomBytes(MIB));
    const store = await BackupStore.openOrCreate(place(s3));
    await exportToStore(store, optionsOf(machine));
    const chunks = s3.keys("all/hosts/chunks/");
    // Of a proxy; and of a server that lists objects that it cannot find.
    for (const [code, expected] of [
      ["", "TARGET_FAILED"],
      ["NoSuchKey", "BACKUP_DAMAGED"],
    ] as const) {
      s3.faultOf = (request) => (/GET .*points/.test(request) ? { status: 404, code } : undefined);
      assert.is((await failureOf(collectGarbage(store))).code, expected);
      assert.equal(s3.keys("all/hosts/chunks/"), chunks);
    }
    s3.faultOf = () => ({ status: 404, code: "" });
    assert.is((await failureOf(BackupStore.open(place(s3)))).code, "TARGET_FAILED");
  }));

test.run();
