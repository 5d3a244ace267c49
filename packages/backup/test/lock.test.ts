/** Processes that find a stale lock, in any order of their steps: at most one acquires it. */
import { randomUUID } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BackupError } from "../dist/errors.js";
import type { Files } from "../dist/files.js";
import { holderNow } from "../dist/holder.js";
import { FileLock } from "../dist/lock.js";

const FOLDER = "/copies";
const LOCK = `${FOLDER}/disk.lock`;
const PROCESSES = 4;
const ROUNDS = 400;

/** A process that has ended; its pid was not reused. */
function deadText(): string {
  return JSON.stringify({ ...holderNow("an export"), began: "0" });
}

/** Numbers from a seed. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed * 2654435761;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    return (((state >>> 8) ^ state) % below) >>> 0;
  };
}

/** A folder in memory; each step of a process waits for its turn. */
class Folder {
  readonly names = new Map<string, { data: Buffer }>();
  readonly #waiting: (() => void)[] = [];
  readonly #random: (below: number) => number;

  constructor(random: (below: number) => number) {
    this.#random = random;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Lets processes continue one by one, until none waits. */
  async run(works: readonly Promise<unknown>[]): Promise<void> {
    let isOver = false;
    const over = Promise.all(works).finally(() => {
      isOver = true;
    });
    over.catch(() => undefined);
    while (!isOver) {
      const [next] = this.#waiting.splice(this.#random(this.#waiting.length), 1);
      next?.();
      await new Promise(setImmediate);
    }
    await over;
  }

  /** The view of a process that dies before its step of this number. */
  files(lastStep = Number.POSITIVE_INFINITY): Files {
    let steps = 0;
    const step = async <Value>(work: () => Value): Promise<Value> => {
      await this.turn();
      if (++steps >= lastStep) return new Promise(() => undefined);
      return work();
    };
    const { names } = this;
    const own = {
      read: (path: string) => step(() => names.get(path)?.data),
      create: (path: string, data: Buffer) => step(() => void names.set(path, { data })),
      link: (from: string, to: string) =>
        step(() => {
          if (names.has(to)) return false;
          names.set(to, names.get(from) as { data: Buffer });
          return true;
        }),
      remove: (path: string) => step(() => void names.delete(path)),
    };
    return own as unknown as Files;
  }
}

test("at most one takes over the lock of a process that has ended, in any order of steps", async () => {
  let taken = 0;
  let refused = 0;
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const folder = new Folder(randomFrom(seed));
    folder.names.set(LOCK, { data: Buffer.from(deadText()) });
    let holders = 0;
    const use = async (): Promise<void> => {
      try {
        const lock = await FileLock.acquire(FOLDER, "disk", "an export", folder.files());
        assert.is(++holders, 1, `seed ${seed}: two hold it`);
        taken++;
        for (let turn = 0; turn < 3; turn++) await folder.turn();
        holders--;
        await lock.release();
      } catch (error) {
        if (!(error instanceof BackupError)) throw error;
        assert.is(error.code, "BACKUP_BUSY");
        refused++;
      }
    };
    await folder.run(Array.from({ length: PROCESSES }, use));
    assert.equal([...folder.names.keys()], [], `seed ${seed}: something is left`);
  }
  assert.ok(taken >= ROUNDS && refused > 0, `${taken} times taken, ${refused} times refused`);
});

test("leftovers of a process that was killed while taking over a lock do not block others", async () => {
  for (let lastStep = 2; lastStep <= 8; lastStep++) {
    const folder = new Folder(() => 0);
    folder.names.set(LOCK, { data: Buffer.from(deadText()) });
    const files = folder.files(lastStep);
    void FileLock.acquire(FOLDER, "disk", "an export", files);
    const isOver = async () => {
      for (let turn = 0; turn < lastStep; turn++) await folder.turn();
    };
    await folder.run([isOver()]);
    // It has ended, as its locks state.
    for (const one of new Set(folder.names.values())) {
      one.data = Buffer.from(one.data.toString().replace(/"began":"\d+"/, '"began":"0"'));
    }
    const next = async () => {
      const lock = await FileLock.acquire(FOLDER, "disk", "an export", folder.files());
      await lock.release();
    };
    await folder.run([next()]);
    assert.not(folder.names.has(LOCK), `killed at step ${lastStep}`);
  }
});

test("an error for a folder without files, or a missing one, names the folder, not the file", async () => {
  const missing = `/tmp/${randomUUID()}`;
  const whys = {
    [missing]: `there is no folder ${missing}`,
    "/proc": "can't create files in /proc (ENOENT)",
  };
  for (const [folder, why] of Object.entries(whys)) {
    const taken = FileLock.acquire(folder, "disk", "an export");
    const error = await taken.catch((thrown: unknown) => thrown as BackupError);
    assert.instance(error, BackupError);
    assert.is((error as BackupError).message, why);
    assert.is((error as BackupError).code, "TARGET_FAILED");
  }
});

test.run();
