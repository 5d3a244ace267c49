/**
 * LVM's lock of a volume group. Its programs load tables, write their metadata and exchange the tables while they
 * hold it: a table that is put in between would be the one that they activate.
 *
 * It is a flock(2) on a file that the last holder removes; so a process that gets one looks whether it is still the file
 * of that name. A program of its own holds it, and lets go when this process ends.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { LinuxBlockError } from "../errors.js";
import { programEnvironment } from "./dmsetup.js";
import type { MappedNode } from "./mapped-node.js";

/** LVM's default; there is none where no program of LVM runs. */
const FOLDER = "/run/lock/lvm";
const WAIT_S = 10;
/** For the program itself. */
const SPARE_MS = 5_000;
/** For others of this process, who have the group's lock for as long as an exchange of tables takes. */
const TURN_LIMIT_MS = 60_000;
/** By path of the lock: ends with the last one that has queued for it. */
const turns = new Map<string, Promise<unknown>>();

const HOLD = `
while :; do
  exec 9>>"$1" && flock -w "$2" 9 || exit 1
  [ "$1" -ef /proc/$$/fd/9 ] && break
done
echo held
read -r _
`;

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
  readonly waitS?: number;
  /** For others of this process. */
  readonly turnMs?: number;
}

/**
 * Does something while no program of LVM changes the node's group; at once for what is no logical volume. Of one
 * process only one has the lock at a time: the others come after it, in order.
 * @throws LinuxBlockError DEVICE_MAPPER_FAILED: the lock is not to be had, nothing was done
 */
export async function withGroupLock<Result>(
  node: Pick<MappedNode, "name" | "uuid">,
  work: () => Promise<Result>,
  { folder = FOLDER, waitS = WAIT_S, turnMs = TURN_LIMIT_MS }: LockOptions = {},
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
    return await withLock(group, path, waitS, work);
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

async function withLock<Result>(
  group: string,
  path: string,
  waitS: number,
  work: () => Promise<Result>,
): Promise<Result> {
  const holder = spawn("sh", ["-c", HOLD, "sh", path, String(waitS)], {
    detached: true,
    env: programEnvironment(),
    stdio: ["pipe", "pipe", "ignore"],
  });
  try {
    if (!(await isHeld(holder, waitS * 1000 + SPARE_MS))) {
      const what = `LVM changes the volume group ${group}: its lock ${path} was not free for ${waitS} s`;
      throw new LinuxBlockError("DEVICE_MAPPER_FAILED", what);
    }
    return await work();
  } finally {
    holder.stdin?.end();
  }
}

async function isHeld(holder: ChildProcess, limitMs: number): Promise<boolean> {
  holder.stdin?.on("error", () => undefined);
  const timer = setTimeout(() => endSession(holder), limitMs);
  const answer = await new Promise<boolean>((resolve) => {
    holder.stdout?.once("data", () => resolve(true));
    holder.once("error", () => resolve(false));
    holder.once("exit", () => resolve(false));
  });
  clearTimeout(timer);
  return answer;
}

/** With the flock that it waits for. */
function endSession({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
