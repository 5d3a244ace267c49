/** Syncs files to their media, concurrently and in bounded time. */
import { fdatasync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { promisify } from "node:util";
import { ETIMEDOUT } from "@blksnap/errors";
import { bounded } from "@blksnap/uring";
import { openToSync } from "../system/open-again.js";

export interface SyncedFile {
  readonly path: string;
  readonly fd: number;
}

/** The system calls; replaceable in tests. */
export interface Syncing {
  /** As openToSync(): callers that flush the same device through its front must see write errors, too. */
  readonly open: (fd: number) => Promise<Pick<FileHandle, "datasync" | "close"> | undefined>;
  /** As fdatasync(2), for a file that was not opened again. */
  readonly sync: (fd: number) => Promise<void>;
}

const SYSTEM: Syncing = { open: openToSync, sync: promisify(fdatasync) };
type Call = "open" | "flush";
/** A call that hangs keeps one of the few threads that all file operations share, so it is not repeated. */
const unanswered = new WeakMap<SyncedFile, Call>();

async function ask<Answer>(
  file: SyncedFile,
  which: Call,
  call: () => Promise<Answer>,
): Promise<Answer> {
  unanswered.set(file, which);
  try {
    return await call();
  } finally {
    unanswered.delete(file);
  }
}

/**
 * Makes a call for all files at the same time.
 * @param undo undoes a result if another call has failed, or if it is late
 * @throws Error ETIMEDOUT; as `call` does
 */
async function askAll<Answer>(
  files: readonly SyncedFile[],
  call: (file: SyncedFile, index: number) => Promise<Answer>,
  { which, timeoutMs }: { which: Call; timeoutMs: number },
  undo: (answer: Answer) => void = () => undefined,
): Promise<Answer[]> {
  const late = (why: (call: Call) => string): Error => {
    const hung = files.flatMap((file) => {
      const asked = unanswered.get(file);
      return asked === undefined ? [] : [`${file.path} ${why(asked)}`];
    });
    return Object.assign(new Error(hung.join(", ")), { code: "ETIMEDOUT", errno: -ETIMEDOUT });
  };
  if (files.some((file) => unanswered.has(file))) {
    throw late((earlier) => `has not answered an earlier ${earlier} yet`);
  }
  const answers = files.map((file, index) => ask(file, which, () => call(file, index)));
  try {
    return await bounded(Promise.all(answers), timeoutMs, () =>
      late((asked) => `has not answered the ${asked} in ${timeoutMs} ms`),
    );
  } catch (error) {
    for (const answer of answers) answer.then(undo, () => undefined);
    throw error;
  }
}

/**
 * Opens files in order to sync them while their writers wait: an open that hangs must not make them wait. A file that
 * does not answer may be synced later: its descriptor can be closed meanwhile. Until then it fails at once.
 * @param work receives the function that syncs all; that throws the error of fdatasync(2), or Error ETIMEDOUT
 * @param timeoutMs for opening, and again for syncing
 * @throws the error of open(2); Error ETIMEDOUT; as `work` does
 */
export async function whileOpenToSync<Value>(
  files: readonly SyncedFile[],
  timeoutMs: number,
  work: (sync: () => Promise<void>) => Promise<Value>,
  { open, sync }: Syncing = SYSTEM,
): Promise<Value> {
  type Opened = Awaited<ReturnType<Syncing["open"]>>;
  // The file stays open until its calls have ended.
  const close = (opened: Opened): void => void opened?.close().catch(() => undefined);
  const opening = { which: "open", timeoutMs } as const;
  const opened = await askAll(files, ({ fd }) => open(fd), opening, close);
  try {
    return await work(async () => {
      const call = ({ fd }: SyncedFile, index: number) => opened[index]?.datasync() ?? sync(fd);
      await askAll(files, call, { which: "flush", timeoutMs });
    });
  } finally {
    for (const one of opened) close(one);
  }
}
