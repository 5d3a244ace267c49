/** A store in a bucket. The tests' server verifies each signature and checksum. */
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { Dice, type S3Fault } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, prune, verify } from "../dist/care.js";
import { exportToStore } from "../dist/export-store.js";
import { restore } from "../dist/restore.js";
import { encodedPart, encodedQuery, signed } from "../dist/s3-signature.js";
import { BackupStore } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB, NOW_MS } from "./fake-machine.js";
import { BUCKET, LIMITS, optionsOf, place, withS3 } from "./s3-place.js";

const SEED = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);

async function assertRestores(
  machine: FakeMachine,
  store: BackupStore,
  content: Buffer,
  at = -1,
): Promise<void> {
  const target = machine.path("restored");
  await restore({ store, point: (await store.points()).at(at)!, target });
  await assertSame(target, content);
  rmSync(target);
}

test("signatures are those of the examples in Amazon's documentation", () => {
  const credentials = {
    accessKeyId: "AKIAIOSFODNN7EXAMPLE",
    secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  };
  const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const signatureOf = (method: string, rest: string, more: object = {}): string => {
    const headers = { "x-amz-content-sha256": empty, ...more };
    const url = new URL(`https://examplebucket.s3.amazonaws.com/${rest}`);
    const now = new Date("2013-05-24T00:00:00Z");
    const { authorization } = signed({ method, url, headers }, credentials, "us-east-1", now);
    return /Signature=(.*)$/.exec(authorization!)![1]!;
  };
  assert.is(
    signatureOf("GET", "test.txt", { range: "bytes=0-9" }),
    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
  );
  assert.is(
    signatureOf("GET", `?${encodedQuery({ prefix: "J", "max-keys": "2" })}`),
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
  );
  assert.is(
    signatureOf("PUT", encodedPart("test$file.text"), {
      date: "Fri, 24 May 2013 00:00:00 GMT",
      "x-amz-storage-class": "REDUCED_REDUNDANCY",
      "x-amz-content-sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
    }),
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
  );
});

test("full, incremental, restore, verify, prune and gc; hosts share chunks", () =>
  withS3(async (s3, machine) => {
    assert.is((await failureOf(BackupStore.open(place(s3)))).code, "BACKUP_NOT_FOUND");
    const store = await BackupStore.openOrCreate(place(s3));
    machine.write(0, randomBytes(5 * MIB));
    const first = Buffer.from(machine.content);
    const full = await exportToStore(store, optionsOf(machine));
    machine.write(4 * MIB + 65_536, randomBytes(65_536));
    const next = await exportToStore(store, optionsOf(machine));
    assert.is(next.parent, full.id);
    const other = await BackupStore.openOrCreate(place(s3));
    machine.beginGeneration();
    const copy = await exportToStore(other, optionsOf(machine, { host: "there" }));
    assert.is(copy.stored_bytes, 0);
    await assertRestores(machine, store, first, 0);
    await assertRestores(machine, store, machine.content, 1);
    assert.is((await verify(store, await store.points())).damaged.length, 0);
    assert.is((await prune(store, { last: 1 }, false, { nowMs: NOW_MS })).length, 1);
    const { removed_chunks, kept_chunks } = await collectGarbage(store);
    assert.equal({ removed_chunks, kept_chunks }, { removed_chunks: 1, kept_chunks: 2 });
    await assertRestores(machine, store, machine.content);
    assert.equal(s3.keys("all/hosts/locks/"), []);
    assert.ok(s3.keys("").every((key) => key.startsWith("all/hosts/")));
    // The manifest of a point is written last.
    const puts = s3.log.filter((one) => one.startsWith("PUT") && !one.includes("/locks/"));
    assert.match(puts.at(-1)!, "/points/");
  }));

test("a bucket with foreign objects is refused, and not made a store", () =>
  withS3(async (s3) => {
    s3.objects.set("all/hosts/thesis.txt", { data: Buffer.alloc(1), modifiedMs: 0 });
    s3.objects.set("all/hosts2/thesis.txt", { data: Buffer.alloc(1), modifiedMs: 0 });
    assert.is((await failureOf(BackupStore.openOrCreate(place(s3)))).code, "TARGET_EXISTS");
    s3.objects.delete("all/hosts/thesis.txt");
    await BackupStore.openOrCreate(place(s3));
  }));

test(`late answers, 503, broken connections: everything completes correctly; SEED=${SEED}`, () =>
  withS3(async (s3, machine) => {
    const faults: readonly S3Fault[] = [
      ...[
        { status: 503, code: "SlowDown" },
        { status: 500, code: "InternalError" },
      ],
      ...(["tear", "lose", "half", "late"] as const),
    ];
    const dice = new Dice(SEED);
    let planted = 0;
    s3.faultOf = () => {
      if (dice.below(3) > 0) return undefined;
      planted++;
      return dice.pick(faults);
    };
    const store = await BackupStore.openOrCreate(
      place(s3, { limits: { ...LIMITS, attempts: 40 } }),
    );
    for (let round = 0; round < 2; round++) {
      machine.write(round * 2 * MIB, randomBytes(MIB));
      await exportToStore(store, optionsOf(machine));
      await assertRestores(machine, store, machine.content);
    }
    await prune(store, { last: 1 }, false, { nowMs: NOW_MS });
    await collectGarbage(store);
    assert.is((await verify(store, await store.points())).damaged.length, 0);
    assert.equal(s3.keys("all/hosts/locks/"), []);
    assert.ok(planted > 6, `${planted} faults`);
  }));

test("a server that does not come back is named, and leaves no point and no secret", () =>
  withS3(async (s3, machine) => {
    machine.write(0, randomBytes(MIB));
    const store = await BackupStore.openOrCreate(place(s3));
    const cases: [S3Fault, RegExp][] = [
      [{ status: 503, code: "SlowDown" }, /503 SlowDown: No & no. \[2J, 9 times/],
      ["tear", /other side closed|ECONNRESET|socket hang up/],
      [{ status: 403, code: "AccessDenied" }, /403 AccessDenied: No & no. \[2J$/],
    ];
    for (const [fault, said] of cases) {
      s3.faultOf = (request) => (/PUT .*chunks/.test(request) ? fault : undefined);
      const error = await failureOf(exportToStore(store, optionsOf(machine)));
      assert.is(error.code, "TARGET_FAILED");
      assert.match(error.message, said);
      assert.match(error.message, `can't write s3://${BUCKET}/all/hosts/chunks/`);
      assert.not.match(`${error.message} ${error.stack}`, s3.environment["AWS_SECRET_ACCESS_KEY"]!);
      assert.is(machine.snapshotId, null);
    }
    // It fails for good in the middle: that is reported, not the failed clean-up after it.
    let isDown = false;
    s3.faultOf = (request) => {
      isDown ||= /PUT .*chunks/.test(request);
      return isDown ? "tear" : undefined;
    };
    const down = await failureOf(exportToStore(store, optionsOf(machine)));
    assert.match(down.message, /^can't write .*chunks/);
    s3.endHolders();
    s3.faultOf = (request) =>
      /PUT .*chunks/.test(request) ? { status: 507, code: "XMinioStorageFull" } : undefined;
    assert.is((await failureOf(exportToStore(store, optionsOf(machine)))).code, "TARGET_FULL");
    s3.faultOf = () => undefined;
    assert.equal(await store.points(), []);
    await exportToStore(store, optionsOf(machine));
    await assertRestores(machine, store, machine.content);
    const environment = { ...s3.environment, AWS_SECRET_ACCESS_KEY: "geheim" };
    const refused = await failureOf(BackupStore.open(place(s3, { environment })));
    assert.match(refused.message, "SignatureDoesNotMatch");
    assert.not.match(`${refused.message} ${refused.stack}`, /geheim/);
    assert.not.match(refused.message, s3.environment["AWS_ACCESS_KEY_ID"]!);
  }));

test("an unanswered request is retried; an interrupted program does not wait", () =>
  withS3(async (s3) => {
    let requests = 0;
    s3.faultOf = () => (++requests === 1 ? "never" : undefined);
    const limits = { ...LIMITS, answerMs: 200 };
    await BackupStore.openOrCreate(place(s3, { limits }));
    assert.ok(requests > 1);
    s3.faultOf = () => ({ status: 503, code: "SlowDown" });
    const signal = AbortSignal.abort();
    const patient = { ...LIMITS, delayMs: 3_600_000 };
    const error = await failureOf(BackupStore.open(place(s3, { limits: patient, signal })));
    assert.match(error.message, /SlowDown: No & no. \[2J$/);
  }));

test("two hosts can create a store at the same time", () =>
  withS3(async (s3, machine) => {
    machine.write(0, randomBytes(MIB));
    let isMade = false;
    const objects = place(s3);
    const slow = Object.create(objects) as typeof objects;
    for (const name of ["look", "put", "remove", "sync", "pathOf", "list"] as const) {
      Object.assign(slow, { [name]: objects[name].bind(objects) });
    }
    slow.get = async (key) => {
      const found = await objects.get(key);
      if (!isMade) {
        isMade = true;
        await exportToStore(await BackupStore.openOrCreate(place(s3)), optionsOf(machine));
      }
      return found;
    };
    assert.is((await (await BackupStore.openOrCreate(slow)).points()).length, 1);
  }));

test("a prune that is interrupted leaves no lock", () =>
  withS3(async (s3, machine) => {
    const store = await BackupStore.openOrCreate(place(s3));
    for (let round = 0; round < 3; round++) {
      machine.write(round * MIB, randomBytes(65_536));
      await exportToStore(store, optionsOf(machine));
    }
    const interruption = new AbortController();
    s3.faultOf = (request) => {
      if (/DELETE .*points/.test(request)) interruption.abort();
      return undefined;
    };
    const { signal } = interruption;
    const error = await failureOf(prune(store, { last: 1 }, false, { signal, nowMs: NOW_MS }));
    assert.is(error.code, "ABORTED");
    assert.is((await store.points()).length, 2);
    assert.equal(s3.keys("all/hosts/locks/"), []);
  }));

test("an export that is killed at any request leaves all points whole, and the next one completes", () =>
  withS3(async (s3, machine) => {
    machine.write(0, randomBytes(4 * MIB));
    await exportToStore(await BackupStore.openOrCreate(place(s3)), optionsOf(machine));
    const before = Buffer.from(machine.content);
    let kills = 0;
    // A quarter of all requests, chosen by the seed, because each takes time.
    for (let last = 1 + (SEED % 4); ; last += 4) {
      machine.write(4 * MIB, randomBytes(2 * MIB));
      let requests = 0;
      s3.faultOf = () => {
        requests++;
        // The last one may have succeeded without a response.
        if (requests === last) return last % 8 < 4 ? "tear" : "lose";
        return requests > last ? "tear" : undefined;
      };
      const limits = { ...LIMITS, attempts: 1 };
      const isDone = await BackupStore.open(place(s3, { limits })).then(
        (store) =>
          exportToStore(store, optionsOf(machine)).then(
            () => requests < last,
            () => false,
          ),
        () => false,
      );
      s3.faultOf = () => undefined;
      s3.endHolders();
      const store = await BackupStore.open(place(s3));
      const points = await store.points();
      assert.is((await verify(store, points)).damaged.length, 0);
      for (const point of points.slice(1)) await store.removePoint(point);
      if (isDone) break;
      kills++;
    }
    assert.ok(kills > 2, `${kills} kills`);
    const store = await BackupStore.open(place(s3));
    await assertRestores(machine, store, before, 0);
    const next = await exportToStore(store, optionsOf(machine));
    assert.is(next.kind, "incremental");
    await assertRestores(machine, store, machine.content);
    await collectGarbage(store);
    assert.is(s3.keys("all/hosts/chunks/").length, 2);
    assert.equal(s3.keys("all/hosts/locks/"), []);
  }));

test("verify and restore name an object that is flipped, truncated or lost", () =>
  withS3(async (s3, machine) => {
    machine.write(0, randomBytes(MIB));
    const store = await BackupStore.openOrCreate(place(s3));
    await exportToStore(store, optionsOf(machine));
    const points = await store.points();
    const [key] = s3.keys("all/hosts/chunks/");
    const whole = s3.objects.get(key!)!;
    const flipped = Buffer.from(whole.data);
    flipped[flipped.length - 9]! ^= 1;
    for (const data of [flipped, whole.data.subarray(0, -1), undefined]) {
      if (data === undefined) s3.objects.delete(key!);
      else s3.objects.set(key!, { ...whole, data });
      const { damaged } = await verify(store, points);
      assert.match(damaged[0]!.why, `s3://${BUCKET}/${key}`);
      const target = machine.path("restored");
      const error = await failureOf(restore({ store, point: points[0]!, target }));
      assert.is(error.code, "BACKUP_DAMAGED");
      assert.match(error.message, key!);
      rmSync(target, { force: true });
    }
  }));

test("many requests are in flight, none larger than a chunk", () =>
  withS3(async (s3) => {
    const machine = new FakeMachine(64 * MIB);
    for (let chunk = 0; chunk < 15; chunk++) machine.write(chunk * 4 * MIB, randomBytes(65_536));
    // With fewer in flight this never ends.
    const limits = { ...LIMITS, answerMs: 120_000, attempts: 1 };
    const store = await BackupStore.openOrCreate(place(s3, { limits }));
    s3.gatherCount = 5;
    const isPut = (request: string): boolean => /^PUT .*\/chunks\//.test(request);
    s3.faultOf = (request) => (isPut(request) ? "gather" : undefined);
    await exportToStore(store, optionsOf(machine));
    const puts = s3.log.filter(isPut);
    assert.is(puts.length, 15);
    machine.remove();
  }));

test.run();
