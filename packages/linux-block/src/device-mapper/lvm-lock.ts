/**
 * LVM's lock of a volume group. Its programs load tables, write their metadata and exchange the tables while they
 * hold it: a table that is put in between would be the one that they activate.
 *
 * It is a flock(2) on a file that the last holder removes; so a process that gets one looks whether it is still the file
 * of that name. This process holds it itself, and lets go when it ends: a program could not be started while the node that
 * it lies on stands still.
 */
import { closeSync, existsSync, fstatSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LinuxBlockError } from "../errors.js";
import type { MappedNode } from "./mapped-node.js";

/** LVM's default; there is none where no program of LVM runs. */
const FOLDER = "/run/lock/lvm";
const WAIT_MS = 10_000;
/** Between two attempts. */
const INTERVAL_MS = 20;
/** For others of this process, who have the group's lock for as long as an exchange of tables takes. */
const TURN_LIMIT_MS = 60_000;
/** By path of the lock: ends with the last one that has queued for it. */
const turns = new Map<string, Promise<unknown>>();

/** flock(2), exclusively and without waiting: whether it was to be had. @throws where it cannot be asked for */
export type TryFlock = (fd: number) => boolean;

/** Of a logical volume: "my--group-data" is of the group "my-group". */
export function volumeGroupOf({
  name,
  uuid,
}: Pick<MappedNode, "name" | "uuid">): string | undefined {
  if (!uuid.startsWith("LVM-")) return undefined;
  const [group] = /^(?:[^-]|--)+(?=-[^-])/.exec(name) ?? [];
  return group?.replaceAll("--", "-");
}

interface LockOptions {
  readonly folder?: string;
  /** For the programs of LVM. */
  readonly waitMs?: number;
  /** For others of this process. */
  readonly turnMs?: number;
}

/**
 * Does something while no program of LVM changes the node's group; at once for what is not a logical volume. Of one
 * process only one has the lock at a time: the others come after it, in order.
 * @throws LinuxBlockError DEVICE_MAPPER_FAILED: the lock is not to be had, nothing was done
 */
export async function withGroupLock<Result>(
  node: Pick<MappedNode, "name" | "uuid">,
  tryFlock: TryFlock,
  work: () => Promise<Result>,
  { folder = FOLDER, waitMs = WAIT_MS, turnMs = TURN_LIMIT_MS }: LockOptions = {},
): Promise<Result> {
  const group = volumeGroupOf(node);
  if (group === undefined || !existsSync(folder)) return work();
  const path = join(folder, `V_${group}`);
  const endTurn = await turn(path, turnMs);
  if (endTurn === undefined) {
    const what = `other nodes of the volume group ${group} were not done in ${turnMs} ms`;
    throw new LinuxBlockError("DEVICE_MAPPER_FAILED", what);
  }
  try {
    const fd = await locked(group, path, tryFlock, waitMs);
    try {
      return await work();
    } finally {
      closeSync(fd);
    }
  } finally {
    endTurn();
  }
}

/** Answers what ends it; undefined where those before it have not ended in time. */
async function turn(path: string, limitMs: number): Promise<(() => void) | undefined> {
  const before = turns.get(path) ?? Promise.resolve();
  let end = (): void => undefined;
  const own = new Promise<void>((resolve) => {
    end = resolve;
  });
  // Behind one that gives up, others still wait for those before it.
  const last = Promise.all([before, own]);
  turns.set(path, last);
  void last.then(() => {
    if (turns.get(path) === last) turns.delete(path);
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  const isTurn = await Promise.race([before.then(() => true), late]);
  clearTimeout(timer);
  if (isTurn) return end;
  end();
  return undefined;
}

/** Answers the descriptor that has the lock. @throws as withGroupLock() */
async function locked(
  group: string,
  path: string,
  tryFlock: TryFlock,
  waitMs: number,
): Promise<number> {
  const deadlineMs = performance.now() + waitMs;
  for (;;) {
    const fd = lockedNow(path, tryFlock);
    if (typeof fd === "number") return fd;
    if (performance.now() >= deadlineMs) {
      const why = fd instanceof Error ? fd.message : `was not free for ${waitMs} ms`;
      const what = `LVM changes the volume group ${group}: its lock ${path} ${why}`;
      throw new LinuxBlockError("DEVICE_MAPPER_FAILED", what, { cause: fd });
    }
    await sleep(INTERVAL_MS);
  }
}

/** Undefined if another process has it; an error if that cannot be determined. */
function lockedNow(path: string, tryFlock: TryFlock): number | Error | undefined {
  let fd: number | undefined;
  try {
    // As LVM makes it: every program of it that comes later takes this one.
    fd = openSync(path, "a+", 0o600);
    if (tryFlock(fd) && isStill(path, fd)) return fd;
    closeSync(fd);
    return undefined;
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    return error as Error;
  }
}

function isStill(path: string, fd: number): boolean {
  const now = statSync(path, { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(fd);
  return now?.dev === dev && now.ino === ino;
}
