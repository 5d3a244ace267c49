/**
 * LVM's lock of a volume group. LVM's programs load tables, write metadata and exchange tables under it: a table that
 * is loaded in between would be the one that they activate.
 *
 * It is a flock(2) on a file that the last holder removes; so a process that gets the lock checks that the file still
 * has its name. This process holds the lock itself, which ends with it: no program could be started while the node
 * that it lies on is suspended.
 */
import { closeSync, existsSync, fstatSync, openSync, statSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LinuxBlockError } from "../errors.js";
import type { MappedNode } from "./mapped-node.js";

/** LVM's default; absent while no program of LVM runs. */
const FOLDER = "/run/lock/lvm";
const WAIT_MS = 10_000;
/** Between two attempts. */
const INTERVAL_MS = 20;
/** Other operations of this process hold the group's lock as long as an exchange of tables takes. */
const TURN_LIMIT_MS = 60_000;
/** By path of the lock: resolves when the last queued operation ends. */
const turns = new Map<string, Promise<unknown>>();

/** flock(2), exclusive and non-blocking: whether it was acquired. @throws if it cannot be requested */
export type TryFlock = (fd: number) => boolean;

/** Splits a logical volume's name: "my--group-data" is in the group "my-group". */
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
  /** Time limit to wait for programs of LVM. */
  readonly waitMs?: number;
  /** Time limit to wait for other operations of this process. */
  readonly turnMs?: number;
}

/**
 * Runs a function while no program of LVM changes the node's group; at once for a node that is no logical volume.
 * Operations of this process take turns, in order.
 * @throws LinuxBlockError DEVICE_MAPPER_FAILED: the lock was not acquired, nothing was done
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

/** Returns a function that ends the turn; undefined if earlier operations have not ended in time. */
async function turn(path: string, limitMs: number): Promise<(() => void) | undefined> {
  const before = turns.get(path) ?? Promise.resolve();
  let end = (): void => undefined;
  const own = new Promise<void>((resolve) => {
    end = resolve;
  });
  // Operations behind one that gives up still wait for those before it.
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

/** Returns the descriptor that holds the lock. @throws as withGroupLock() */
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
    // With LVM's mode, because later programs of LVM lock the same file.
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
