/** The state of a raw copy: what it can be updated from, and what is recorded meanwhile. */
import { BackupError } from "./errors.js";
import { hostText, isOtherMachine, isSameHost } from "./host.js";
import type { AsOf } from "./plan.js";
import {
  type EarlierRecord,
  isOfThisVersion,
  type RawRecord,
  readRecord,
  recordPathOf,
  removeRecord,
  writeRecord,
} from "./raw-record.js";
import { isComplete, isLeftUpdate, sealOf, type TargetKind, targetKind } from "./raw-target.js";
import { type CopySeal, changeSince } from "./seal.js";
import type { Sums } from "./sums.js";

const RECORD_HINT = "Remove it, or name another target";

export interface CopyState {
  /** The snapshot from which the target can be updated. */
  readonly base: RawRecord | undefined;
  /** Why there is none any more. */
  readonly why: string | undefined;
}

/** An interrupted update may have written some of its goal: later diffs list all of that, earlier ones do not. */
function isBefore(now: AsOf, cut: NonNullable<RawRecord["updating_to"]>): boolean {
  const [nowMs, cutMs] = [Date.parse(now.taken_at), Date.parse(cut.taken_at)];
  if (now.changes_number === cut.changes_number) return nowMs !== cutMs;
  return now.changes_number < cut.changes_number || !(nowMs >= cutMs);
}

function checkSameDevice(
  target: string,
  record: string,
  known: Pick<AsOf, "host" | "machine_id" | "device">,
  now: AsOf,
): void {
  const isSameDevice = known.device === now.device;
  if (isSameHost(known, now) && isSameDevice) return;
  // Unlike a point in a store, it would be lost.
  const is = `${target} is a copy of ${known.device} of ${hostText(known)}`;
  if (!isOtherMachine(known, now) || !isSameDevice) {
    throw new BackupError("TARGET_EXISTS", is, { hint: RECORD_HINT });
  }
  const hint =
    `Name another target. If it is this machine, and /etc/machine-id is new at each boot: remove ${target} and ` +
    `${record}, and boot with systemd.machine_id=ID, which lasts`;
  throw new BackupError("TARGET_EXISTS", `${is}, and this is ${hostText(now)}`, { hint });
}

/**
 * Why the target is not as the copy was left. A record beside a file belongs to that file. A record with another name
 * may belong to a copy elsewhere, while this file is foreign.
 */
async function checkOwn(
  target: string,
  record: string,
  known: RawRecord | EarlierRecord,
): Promise<void> {
  if (record === recordPathOf(target) || known.target === target) return;
  if ((await targetKind(target)) !== "file" || !(await isComplete(target))) return;
  const why = `${target} exists, and is not the copy that ${record} describes`;
  throw new BackupError("TARGET_EXISTS", why, { hint: RECORD_HINT });
}

/** Whether a kill may have left it: the mark of an update goes before its result is on record. */
async function mayBeKilled(
  target: string,
  kind: TargetKind,
  { is_updating, capacity_bytes }: RawRecord,
  seal: CopySeal | undefined,
): Promise<boolean> {
  if (!is_updating || seal?.sizeBytes !== capacity_bytes) return false;
  return kind === "block" || !(await isComplete(target));
}

/**
 * @param record its path; undefined if nothing is recorded
 * @param now the goal of the copy
 * @throws BackupError TARGET_EXISTS for a foreign file or a copy of another device
 */
export async function copyState(
  target: string,
  record: string | undefined,
  now: AsOf,
): Promise<CopyState> {
  const known = record === undefined ? undefined : await readRecord(record);
  const kind = await targetKind(target);
  if (record === undefined || known === undefined) {
    if (kind === "file" && (await isComplete(target))) {
      const why = `${target} exists, and is not a copy made by export`;
      throw new BackupError("TARGET_EXISTS", why, { hint: RECORD_HINT });
    }
    return { base: undefined, why: undefined };
  }
  if (kind === "missing") return { base: undefined, why: `${target} is gone` };
  checkSameDevice(target, record, known, now);
  if (!isOfThisVersion(known)) {
    await checkOwn(target, record, known);
    return { base: undefined, why: "its record is from an earlier version" };
  }
  // An update that has not begun has changed nothing.
  const seal = await sealOf(target, known.capacity_bytes);
  const change = seal === undefined ? "it is gone" : changeSince(known.seal, seal);
  const isLeft = known.is_updating && (await isLeftUpdate(target, known));
  if (change !== undefined && !isLeft) {
    await checkOwn(target, record, known);
    const or = (await mayBeKilled(target, kind, known, seal))
      ? ", or its last update was killed at its very end"
      : "";
    return { base: undefined, why: `another program has written to ${target}${or}: ${change}` };
  }
  const { updating_to: cut } = known;
  if (isLeft && cut !== undefined && isBefore(now, cut)) {
    const to = `snapshot ${cut.changes_number}, taken at ${cut.taken_at}`;
    const why = `an update of ${target} to ${to}, was interrupted, and this snapshot is not a later one`;
    return { base: undefined, why };
  }
  return { base: known, why: undefined };
}

/** What is recorded before the first change of a copy: nothing, if it is created. */
export async function rememberBegun(
  record: string | undefined,
  base: RawRecord | undefined,
  { changes_number, taken_at }: AsOf,
): Promise<void> {
  if (record === undefined) return;
  if (base === undefined) return removeRecord(record);
  const updating_to = { changes_number, taken_at };
  await writeRecord(record, { ...base, is_updating: true, updating_to });
}

/**
 * The copy is complete, and the next one can continue from it.
 * @param sums of all its blocks; undefined if nothing is recorded
 */
export async function rememberDone(
  record: string | undefined,
  done: Omit<RawRecord, "is_updating" | "updating_to" | "sums">,
  sums: Sums | undefined,
): Promise<void> {
  if (record === undefined) return;
  await writeRecord(record, { ...done, is_updating: false, sums: sums?.record() });
}
