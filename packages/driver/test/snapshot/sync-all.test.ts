/** A take waits for the sync of its originals, but never without end. */
import { closeSync } from "node:fs";
import { createMemoryFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type SyncedFile, type Syncing, whileOpenToSync } from "../../dist/snapshot/sync-all.js";

const LONG_MS = 600_000;

function fileOf(fd: number): SyncedFile {
  return { path: `/dev/of-${fd}`, fd };
}

async function failureOf(work: Promise<void>): Promise<NodeJS.ErrnoException | undefined> {
  return work.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error,
  );
}

/** For files that are not opened again. */
function syncAll(
  files: readonly SyncedFile[],
  timeoutMs: number,
  sync?: Syncing["sync"],
): Promise<void> {
  const syncing = sync && { open: async () => undefined, sync };
  return whileOpenToSync(files, timeoutMs, (syncThem) => syncThem(), syncing);
}

test("all files are synced, and a failure is reported", async () => {
  const files = ["one", "other"].map((name) => fileOf(createMemoryFile(name)));
  await syncAll(files, LONG_MS);
  for (const { fd } of files) closeSync(fd);
  const failure = await failureOf(syncAll([fileOf(-1)], LONG_MS));
  assert.ok(failure !== undefined);
  const synced: number[] = [];
  const sync = async (fd: number): Promise<void> => void synced.push(fd);
  const [three, four] = [fileOf(3), fileOf(4)];
  for (let round = 0; round < 2; round++) await syncAll([three, four], LONG_MS, sync);
  assert.equal(synced, [3, 4, 3, 4]);
});

test("one that does not answer fails in time, whatever the others do", async () => {
  const hangs = (fd: number): Promise<void> =>
    fd === 4 ? new Promise(() => undefined) : Promise.resolve();
  const failure = await failureOf(syncAll([fileOf(3), fileOf(4)], 20, hangs));
  assert.is(failure?.code, "ETIMEDOUT");
  assert.is(failure?.message, "/dev/of-4 has not answered the flush in 20 ms");
});

test("a hanging flush occupies one thread, however often it is tried, and its late error is ignored", async () => {
  const hung = fileOf(3);
  const asked: number[] = [];
  let answer = (_error: Error): void => undefined;
  const late = (fd: number): Promise<void> => {
    asked.push(fd);
    return new Promise((_, reject) => {
      answer = reject;
    });
  };
  assert.is((await failureOf(syncAll([hung], 20, late)))?.code, "ETIMEDOUT");
  for (let round = 0; round < 3; round++) {
    const again = await failureOf(syncAll([fileOf(4), hung], LONG_MS, late));
    assert.is(again?.code, "ETIMEDOUT");
    assert.match(again?.message ?? "", "/dev/of-3 has not answered");
  }
  assert.equal(asked, [3]);
  answer(new Error("failed at last"));
  await new Promise(setImmediate);
  await syncAll([hung], LONG_MS, async (fd) => void asked.push(fd));
  assert.equal(asked, [3, 3]);
});

test("opened files are closed, even late ones, and none is synced if one cannot be opened", async () => {
  const told: string[] = [];
  let answer = (): void => undefined;
  const open = async (fd: number) => {
    if (fd === 4) {
      await new Promise<void>((done) => {
        answer = done;
      });
    }
    if (fd === 5) throw new Error("not to be opened");
    return {
      datasync: async () => void told.push(`sync ${fd}`),
      close: async () => void told.push(`close ${fd}`),
    };
  };
  const sync = async (): Promise<void> => undefined;
  const using = (fds: number[]) =>
    failureOf(whileOpenToSync(fds.map(fileOf), 20, async (syncThem) => syncThem(), { open, sync }));
  assert.is(await using([3, 6]), undefined);
  assert.equal(told.splice(0), ["sync 3", "sync 6", "close 3", "close 6"]);
  assert.is((await using([3, 4]))?.message, "/dev/of-4 has not answered the open in 20 ms");
  assert.equal(told.splice(0), ["close 3"]);
  answer();
  await new Promise(setImmediate);
  assert.equal(told.splice(0), ["close 4"]);
  assert.is((await using([3, 5]))?.message, "not to be opened");
  await new Promise(setImmediate);
  assert.equal(told, ["close 3"]);
});

test("an open that hangs occupies one thread, and later failures say that it was an open", async () => {
  const hung = fileOf(4);
  let opens = 0;
  const open = (): Promise<never> => {
    opens++;
    return new Promise(() => undefined);
  };
  const sync = async (): Promise<void> => undefined;
  const using = (timeoutMs: number) =>
    failureOf(whileOpenToSync([hung], timeoutMs, async (syncThem) => syncThem(), { open, sync }));
  assert.is((await using(20))?.message, "/dev/of-4 has not answered the open in 20 ms");
  assert.is((await using(LONG_MS))?.message, "/dev/of-4 has not answered an earlier open yet");
  assert.is(opens, 1);
});

test.run();
