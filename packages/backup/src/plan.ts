/** Decides what an export has to read: everything, or the changes since a state of the target. */
import type { DiffRange } from "@blksnap/api";
import { BackupError } from "./errors.js";
import { type HostIdentity, hostText, isSameHost } from "./host.js";
import type { BackupClient, TakenSnapshot } from "./snapshot.js";

/** Whether a target is updated from a number, from any state that it has, or written in full. */
export type Wanted =
  | { readonly kind: "full" }
  | { readonly kind: "auto" }
  | { readonly kind: "since"; readonly number: number };

/** A state of the device that a target has. */
export interface AsOf extends HostIdentity {
  readonly device: string;
  readonly capacity_bytes: number;
  readonly generation_id: string;
  readonly changes_number: number;
  readonly taken_at: string;
}

/** The state that an export of this snapshot produces. */
export function asOf(snapshot: TakenSnapshot, host: HostIdentity): AsOf {
  const { device, capacityBytes, generationId, changesNumber, takenAt } = snapshot;
  return {
    ...{ ...host, device, capacity_bytes: capacityBytes, generation_id: generationId },
    ...{ changes_number: changesNumber, taken_at: takenAt },
  };
}

/** Reported to the caller, who knows the host. */
export function withoutHost({
  host: _,
  machine_id: __,
  ...told
}: AsOf): Omit<AsOf, keyof HostIdentity> {
  return told;
}

export type Plan<Base extends AsOf> =
  | { readonly kind: "full"; readonly reason: string | null }
  | { readonly kind: "incremental"; readonly base: Base; readonly ranges: readonly DiffRange[] };

/** Errors of `changedExtents` that mean that the changes are unknown. */
const BROKEN: readonly string[] = [
  "CBT_GENERATION_CHANGED",
  "CBT_NUMBER_CHANGED",
  "CBT_NUMBER_UNKNOWN",
  "CBT_CORRUPTED",
];
/** How long to wait for a daemon that is being upgraded. */
const RESUME_MS = 60_000;

function broken(why: string): BackupError {
  return new BackupError("BACKUP_CHAIN_BROKEN", why);
}

/** Why nothing can continue this state; undefined if it can be continued. */
function breakOf(base: AsOf, host: HostIdentity, now: TakenSnapshot): string | undefined {
  const at = `${base.device} of ${hostText(base)}`;
  if (!isSameHost(base, host) || base.device !== now.device) {
    return `the target holds another device, ${at}`;
  }
  if (base.generation_id !== now.generationId) {
    const generations = `${now.generationId} in place of ${base.generation_id}`;
    return `the change tracking of ${now.device} began a new generation (${generations})`;
  }
  if (base.capacity_bytes !== now.capacityBytes) return `the size of ${now.device} has changed`;
  if (base.changes_number > now.changesNumber) {
    return `the target is of snapshot ${base.changes_number}, and this is ${now.changesNumber}`;
  }
  // A device that was reverted to an earlier state, like a virtual machine, assigns its numbers twice.
  const isSame = base.changes_number === now.changesNumber;
  const [baseMs, nowMs] = [Date.parse(base.taken_at), Date.parse(now.takenAt)];
  if (isSame ? baseMs !== nowMs : !(baseMs <= nowMs)) {
    const taken = `snapshot ${base.changes_number}, taken at ${base.taken_at}`;
    return `the target is of ${taken}, and this is ${now.changesNumber}, taken at ${now.takenAt}`;
  }
  return undefined;
}

/**
 * The newest state: within the present generation, by number. A state of another generation from the future comes
 * from a wrong clock and is not the newest; otherwise all later exports would be full ones, for years.
 */
function newestOf<Base extends AsOf>(
  states: readonly Base[],
  now: TakenSnapshot,
): Base | undefined {
  // Another machine of that name may have newer points, from a program that distinguished hosts by name only.
  const own = states.findLast((state) => state.generation_id === now.generationId);
  if (own !== undefined) return own;
  const nowMs = Date.parse(now.takenAt);
  const isOfFuture = (state: Base): boolean => Date.parse(state.taken_at) > nowMs;
  return states.findLast((state) => !isOfFuture(state)) ?? states.at(-1);
}

/** The requested state of the target, or why there is none. */
function baseFor<Base extends AsOf>(
  wanted: Exclude<Wanted, { kind: "full" }>,
  states: readonly Base[],
  host: HostIdentity,
  now: TakenSnapshot,
): { readonly base: Base } | { readonly why: string } {
  const newest = newestOf(states, now);
  if (newest === undefined) return { why: `the target has no backup of ${now.device} yet` };
  if (wanted.kind === "auto") return judged(newest, host, now);
  const inChain = states.filter((state) => state.changes_number === wanted.number);
  const base = inChain.findLast((state) => breakOf(state, host, now) === undefined);
  if (base !== undefined) return { base };
  if (inChain.length > 0) return judged(inChain.at(-1)!, host, now);
  const numbers = states.map((state) => state.changes_number).join(", ");
  return { why: `the target has no point with number ${wanted.number}; it has ${numbers}` };
}

function judged<Base extends AsOf>(
  base: Base,
  host: HostIdentity,
  now: TakenSnapshot,
): { readonly base: Base } | { readonly why: string } {
  const why = breakOf(base, host, now);
  return why === undefined ? { base } : { why };
}

/**
 * @param states of the target, the oldest first
 * @throws BackupError BACKUP_CHAIN_BROKEN if a number was requested
 */
export async function planExport<Base extends AsOf>(
  client: BackupClient,
  wanted: Wanted,
  states: readonly Base[],
  host: HostIdentity,
  now: TakenSnapshot,
): Promise<Plan<Base>> {
  if (wanted.kind === "full") return { kind: "full", reason: null };
  const found = baseFor(wanted, states, host, now);
  const full = (why: string): Plan<Base> => {
    if (wanted.kind === "since") throw broken(`cannot continue snapshot ${wanted.number}: ${why}`);
    return { kind: "full", reason: why };
  };
  if ("why" in found) return full(found.why);
  const { base } = found;
  try {
    const { device, generationId: generation, changesNumber } = now;
    const ranges: DiffRange[] = [];
    const wish = { generation, changesNumber, resumeMs: RESUME_MS };
    for await (const range of client.changedExtents(device, base.changes_number, wish)) {
      ranges.push(range);
    }
    return { kind: "incremental", base, ranges };
  } catch (error) {
    const { code, message } = error as BackupError;
    if (!BROKEN.includes(code)) throw error;
    return full(message);
  }
}
