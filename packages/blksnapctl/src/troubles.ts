/** Problems of a tracked device, from `status`; the gravest first. */
import type { SnapshotStatus, StatusResponse, TrackerStatus } from "@blksnap/api";
import { strerror } from "./strerror.js";
import { counted, formatBytes, formatSeconds } from "./units.js";

export interface Trouble {
  /** One word for a column. */
  readonly state: string;
  readonly what: string;
  /** What to do. */
  readonly hint: string;
}

const NO_CONFIGURATION = { mistakes: [], missing: [] } as const;

type Member = SnapshotStatus["devices"][number];

const ENODEV = 19;
const ENOSPC = 28;
const ESTALE = 116;
const MORE_ROOM = "Destroy the snapshot, and take the next with a larger --limit";

/** Writes that fail or wait come first, because users of the front feel them. */
function writeTroubles(member: Member): Trouble[] {
  const { blocked_writes_now: blocked, refused_writes: refused } = member;
  const troubles: Trouble[] = [];
  if (refused > 0) {
    const what = `${counted(refused, "write")} failed for lack of space for old data (fail-writes)`;
    const hint = `${MORE_ROOM}; run fsck and remount a file system that turned read-only`;
    troubles.push({ state: "REFUSING", what, hint });
  }
  if (blocked > 0) {
    const what = `${counted(blocked, "write")} held up for lack of space for old data (block-writes)`;
    troubles.push({ state: "BLOCKED", what, hint: MORE_ROOM });
  }
  return troubles;
}

/** Stores that do not answer: meanwhile requests that need them meet the overflow policy. */
function storeTroubles({ stores }: SnapshotStatus): Trouble[] {
  const hung = stores.filter((store) => store.hung).map(({ path }) => path);
  if (hung.length === 0) return [];
  const what = `the store ${hung.join(", ")} does not answer`;
  return [{ state: "HUNG", what, hint: "See dmesg for its disk, or destroy the snapshot" }];
}

/** A failed disk does not become better by more room. */
function afterLoss({ device, error_code }: Member, { stores }: SnapshotStatus): string {
  if (error_code === -ENOSPC) return MORE_ROOM;
  const disks = [device, ...stores.map(({ path }) => path)].join(", ");
  return `See dmesg for which disk has failed, of ${disks}; destroy the snapshot, and take another without that disk`;
}

function lossTroubles(member: Member, snapshot: SnapshotStatus): Trouble[] {
  if (member.error_code === 0) return [];
  if (member.error_code === -ENODEV) {
    const what = "another program has ended the image, or the front before it";
    return [{ state: "LOST", what, hint: "Destroy the snapshot, and take another" }];
  }
  if (member.error_code === -ESTALE) {
    const what = "its node led elsewhere for a time, and old data was not saved; it returns EIO";
    return [{ state: "LOST", what, hint: "Destroy the snapshot" }];
  }
  const lost = `${formatBytes(member.lost_bytes, false)} of the image are lost`;
  const what = `${lost}: ${strerror(-member.error_code)}; it returns EIO there`;
  return [{ state: "LOST", what, hint: afterLoss(member, snapshot) }];
}

function sizeTroubles(tracker: TrackerStatus): Trouble[] {
  const { capacity_bytes, original_capacity_bytes, capacity_why } = tracker;
  if (original_capacity_bytes === 0 || typeof capacity_why !== "string") return [];
  const sizes = [original_capacity_bytes, capacity_bytes].map((size) => formatBytes(size, false));
  const what = `the original has ${sizes[0]} now, the front ${sizes[1]}`;
  const hint = capacity_why.charAt(0).toUpperCase() + capacity_why.slice(1);
  return [{ state: "RESIZED", what, hint }];
}

/** An error of an earlier snapshot says nothing about the current state. */
export function troublesOf(
  tracker: TrackerStatus,
  snapshots: readonly SnapshotStatus[],
): readonly Trouble[] {
  const { io, original_capacity_bytes, persistence, snapshot_id, splice } = tracker;
  const snapshot = snapshots.find(({ id }) => id === snapshot_id);
  const member = snapshot?.devices.find(({ front }) => front === tracker.front);
  const troubles: Trouble[] = [];
  if (!tracker.front_live) {
    const what = `another program has ended the front ${tracker.front}`;
    const hint = "Destroy its snapshot, detach the device and attach it again";
    troubles.push({ state: "ENDED", what, hint });
  }
  if (splice?.state === "lost") {
    const why = splice.why === null ? "" : `: ${splice.why}`;
    const what = `${splice.node} no longer leads to the front${why}; writes were missed`;
    const again = "here it is still not tracked after a minute, detach and attach it";
    const first = member === undefined ? `W${again}` : `Destroy its snapshot; w${again}`;
    troubles.push({ state: "UNTRACKED", what, hint: `${first}; then make a full backup` });
  }
  if (original_capacity_bytes === 0) {
    const hint = "Detach it; data that was not written to it is lost";
    troubles.push({ state: "GONE", what: "the original is gone", hint });
  }
  const resized = sizeTroubles(tracker);
  const isShorter = original_capacity_bytes < tracker.capacity_bytes;
  if (isShorter) troubles.push(...resized);
  if (member !== undefined) troubles.push(...writeTroubles(member));
  if (snapshot !== undefined) troubles.push(...storeTroubles(snapshot));
  if (snapshot !== undefined && member !== undefined) {
    troubles.push(...lossTroubles(member, snapshot));
  }
  if (io.errors > 0 && (member?.refused_writes ?? 0) < io.errors) {
    const what = `${counted(io.errors, "request")} of the front failed since attach`;
    troubles.push({ state: "ERRORS", what, hint: "See dmesg for errors of the original" });
  }
  if (persistence.state === "failed") {
    const why = persistence.why === null ? "" : `: ${persistence.why}`;
    const hint = "Repair the disk of --persistent-dir, then detach and attach again";
    troubles.push({ state: "UNKEPT", what: `the change map is not kept${why}`, hint });
  }
  // Nothing fails meanwhile: the rest is only out of reach.
  if (!isShorter) troubles.push(...resized);
  return troubles;
}

/** Reactors whose thread does not turn, as in a system call that does not end. */
export function stalledReactors({
  daemon,
  reactors,
}: StatusResponse): readonly { what: string; why: string; hint: string }[] {
  return reactors
    .filter(({ stalled_ms }) => stalled_ms > 0)
    .map(({ index, devices, stalled_ms }) => ({
      what: `reactor ${index} has stalled for ${formatSeconds(stalled_ms / 1000)}`,
      why: `${counted(devices, "device")} of it ${devices === 1 ? "does" : "do"} not answer`,
      hint: `See dmesg for their disks; if it lasts, kill -9 ${daemon.pid}: the next daemon resumes them`,
    }));
}

/** Problems of the daemon's configuration. An earlier daemon does not report any. */
export function configurationTroubles({
  daemon,
}: StatusResponse): readonly Omit<Trouble, "state">[] {
  const { mistakes, missing } =
    (daemon as Partial<typeof daemon>).configuration ?? NO_CONFIGURATION;
  const wrong = mistakes.map((mistake) => ({
    what: `the configuration has mistakes, and the earlier one stays in force: ${mistake.replace(/\.$/, "")}`,
    hint: "Correct it, then: blksnapctl daemon upgrade",
  }));
  const absent = missing.map(({ device, from, waited_for, why }) => ({
    what: `${device} (${from}) is ${waited_for ? "waited for" : "not attached"}: ${why}`,
    hint: waited_for ? "It is attached when that ends" : "Correct that, then attach it",
  }));
  return [...wrong, ...absent];
}

/** "ok", or the gravest problem. */
export function stateOf(troubles: readonly Trouble[]): string {
  return troubles[0]?.state ?? "ok";
}
