/** The snapshot that an export reads: the device's existing one, or its own. */

import type { BlksnapClient } from "@blksnap/client";
import { allOf } from "@blksnap/errors";
import { abortedError, BackupError } from "./errors.js";
import { type HostRemembers, withHostRecord } from "./own-snapshot.js";
import type { Remembered } from "./remembered.js";

/** The used part of the client. */
export type BackupClient = Pick<
  BlksnapClient,
  | "cbtInfo"
  | "changedExtents"
  | "snapshotInfo"
  | "snapshotCreate"
  | "snapshotTake"
  | "snapshotDestroy"
> & { readonly status: () => Promise<StatusParts> };

type Status = Awaited<ReturnType<BlksnapClient["status"]>>;
/** The used parts of `status`. */
export interface StatusParts {
  readonly trackers: readonly Pick<Status["trackers"][number], "device" | "front">[];
  readonly snapshots: readonly (Pick<
    Status["snapshots"][number],
    "id" | "taken_at" | "read_only_images" | "releasable_images" | "resumed"
  > & {
    readonly devices: readonly Pick<
      Status["snapshots"][number]["devices"][number],
      "device" | "image" | "image_io"
    >[];
  })[];
}

export interface SnapshotOptions extends HostRemembers {
  readonly client: BackupClient;
  /** Original or front. */
  readonly device: string;
  /** Stores for the export's own snapshot. */
  readonly stores: readonly string[];
  readonly limitBytes: number;
  readonly signal?: AbortSignal | undefined;
  /**
   * Stores the id of the export's own snapshot while it exists: a killed export leaves that, and every later one
   * would read it again.
   */
  readonly ownSnapshot?: Remembered | undefined;
  /**
   * Frees what was read in the diff storage, while it continues: only of a snapshot that is taken for the export, and
   * remembered. Others cannot read that snapshot then. Default: true.
   */
  readonly frees?: boolean | undefined;
  /** Called with findings that end nothing. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/** With this host's record of the own snapshot; undefined: it has none. */
interface RecordedOptions extends SnapshotOptions {
  readonly hostSnapshot: Remembered | undefined;
}

/** Why nothing of a snapshot may be freed while it is read. */
export type KeptSnapshot = "not_wanted" | "existing_snapshot" | "not_remembered";

/** A device in a snapshot that is taken. */
export interface TakenSnapshot {
  readonly id: string;
  /** The original. */
  readonly device: string;
  readonly front: string;
  readonly image: string;
  /** Address of the image's export; null if no server listens. */
  readonly exported: string | null;
  readonly takenAt: string;
  readonly capacityBytes: number;
  readonly generationId: string;
  readonly changesNumber: number;
  /** Null: it was taken for this export, no other program may read its image, and parts of it may be freed. */
  readonly kept: KeptSnapshot | null;
  /**
   * Fails unless the image is still the same one, and whole.
   * @param freedBytes most that this export has freed of it. Default: none
   */
  readonly check: (freedBytes?: number) => Promise<void>;
  /**
   * Begins to destroy the export's own snapshot, when the data was checked and the image is closed. Finishing the
   * target needs neither.
   */
  readonly release: () => void;
}

type Info = Awaited<ReturnType<BackupClient["snapshotInfo"]>>;
type Cbt = Awaited<ReturnType<BackupClient["cbtInfo"]>>;

/** The taken snapshot that the device is in, where there is one already. */
async function takenBefore(options: SnapshotOptions): Promise<TakenSnapshot | undefined> {
  const { client, device } = options;
  const info = await client.snapshotInfo(device);
  const { snapshot_id: id, image } = info;
  if (id === null || image === null) return undefined;
  // Not together with the info: a number from before another's take would belong to an earlier snapshot.
  const [cbt, status] = await allOf([client.cbtInfo(device), statusOf(client, id)]);
  const taken = takenFrom(options, { info, cbt, status }, id, "existing_snapshot");
  await taken.check();
  return taken;
}

/**
 * The own snapshot. All is asked at once, and not checked yet: should another's have taken its place meanwhile, the
 * check at the end finds that, because no id comes twice.
 */
async function takenNow(
  options: SnapshotOptions,
  id: string,
  kept: KeptSnapshot | null,
): Promise<TakenSnapshot> {
  const { client, device } = options;
  const [info, cbt, status] = await allOf([
    client.snapshotInfo(device),
    client.cbtInfo(device),
    statusOf(client, id),
  ]);
  return takenFrom(options, { info, cbt, status }, id, kept);
}

interface Answers {
  readonly info: Info;
  readonly cbt: Cbt;
  readonly status: SnapshotParts | undefined;
}

function takenFrom(
  { client, device }: SnapshotOptions,
  { info, cbt, status }: Answers,
  id: string,
  kept: KeptSnapshot | null,
): TakenSnapshot {
  const { image } = info;
  const takenAt = status?.taken_at ?? null;
  if (info.snapshot_id !== id || image === null || takenAt === null) throw gone(info.device, id);
  return {
    id,
    device: info.device,
    front: info.front,
    image,
    exported: info.nbd_uri,
    takenAt,
    capacityBytes: cbt.capacity_bytes,
    generationId: cbt.generation_id,
    changesNumber: cbt.changes_number,
    kept,
    check: (freedBytes = 0) => {
      const named = { id, device: info.device, image, kept };
      return checkTaken({ client, device }, named, freedBytes);
    },
    release: () => undefined,
  };
}

function settled<Value>(answer: PromiseSettledResult<Value>): Value {
  if (answer.status === "rejected") throw answer.reason;
  return answer.value;
}

async function statusOf(
  client: BackupClient,
  id: string,
): Promise<StatusParts["snapshots"][number] | undefined> {
  return (await client.status()).snapshots.find((snapshot) => snapshot.id === id);
}

/** Fails unless the image is still the same one, shows the device's content, and all changes are known. */
async function checkTaken(
  { client, device }: Pick<SnapshotOptions, "client" | "device">,
  { id, device: original, image, kept }: Pick<TakenSnapshot, "id" | "device" | "image" | "kept">,
  freedBytes: number,
): Promise<void> {
  const [info, status, cbt] = await Promise.allSettled([
    client.snapshotInfo(device),
    statusOf(client, id),
    client.cbtInfo(device),
  ]);
  const now = settled(info);
  if (now.snapshot_id !== id || now.image !== image) throw gone(original, id);
  if (now.error_code !== 0) {
    const why = `snapshot ${id} of ${original} is damaged (error ${now.error_code})`;
    const hint = "Its stores were full or failed: export again, with a larger --limit";
    throw new BackupError("SNAPSHOT_CORRUPTED", why, { hint });
  }
  const snapshot = settled(status);
  if (snapshot === undefined) throw gone(original, id);
  if (kept === null) checkOwn(snapshot, original, freedBytes);
  else checkUnchanged(snapshot, original);
  // Fails if writes were missed.
  settled(cbt);
}

/**
 * Fails unless the image shows the device's content: discarded ranges read as zeros, writes to the image are not the
 * device's, and no diff lists either. Its counters begin at 0 with each daemon.
 */
function checkUnchanged(snapshot: StatusParts["snapshots"][number], original: string): void {
  const { id, releasable_images, read_only_images, resumed } = snapshot;
  const ofDevice = deviceIn(snapshot, original);
  // Regardless of whether anything was freed: an earlier daemon's counters are gone, and more may be freed now.
  if (releasable_images) {
    const hint = `Export again when that has ended. If it was killed: ${destroyText(id)}`;
    const why = `${original} is in snapshot ${id} of another export, which frees what it has read`;
    throw new BackupError("DEVICE_IN_OTHER_SNAPSHOT", why, { hint });
  }
  if (read_only_images) return;
  const { image, image_io } = ofDevice;
  const failed = (why: string): BackupError => {
    const hint =
      "Destroy its snapshot, and take one with --read-only-images, or let export take its own";
    return new BackupError("IMAGE_FAILED", `the image ${image} of ${original} ${why}`, { hint });
  };
  if (image_io.discards > 0) throw failed("was discarded from (fstrim), and misses data");
  if (image_io.writes > 0) throw failed("was written to, and is not what the device held");
  if (resumed) throw failed("may have been written to: an earlier daemon took its snapshot");
}

type SnapshotParts = StatusParts["snapshots"][number];

function deviceIn(
  { id, devices }: SnapshotParts,
  original: string,
): SnapshotParts["devices"][number] {
  const ofDevice = devices.find(({ device }) => device === original);
  if (ofDevice === undefined) throw gone(original, id);
  return ofDevice;
}

/** Fails if others have freed parts of the image of an own snapshot, which nothing can write. */
function checkOwn(snapshot: SnapshotParts, original: string, freedBytes: number): void {
  const { image, image_io } = deviceIn(snapshot, original);
  if (image_io.discard_bytes <= freedBytes) return;
  const hint = "Export again, and let nothing trim the image of an export";
  const why = `the image ${image} of ${original} was discarded from by another program, and misses data`;
  throw new BackupError("IMAGE_FAILED", why, { hint });
}

function gone(device: string, id: string): BackupError {
  const hint =
    "Export again. If it belonged to another export, wait until that has ended; otherwise keep the snapshot until this is done";
  return new BackupError("SNAPSHOT_NOT_FOUND", `snapshot ${id} of ${device} is gone`, { hint });
}

function destroyText(id: string): string {
  return `blksnapctl snapshot_destroy --id ${id}`;
}

/** Recorded in place of an id before the daemon has assigned one. */
const CREATING = "creating";

/** Only an export creates one like this, and this device is in no other. */
async function isOfExport(client: BackupClient, id: string): Promise<boolean> {
  const { taken_at, read_only_images, devices } = (await statusOf(client, id)) ?? {};
  return taken_at === null && read_only_images === true && devices?.length === 1;
}

/** Destroys the snapshot that a killed export of this device has left: to this target, or here. */
async function destroyLeft(options: RecordedOptions): Promise<void> {
  const { client, device, ownSnapshot, hostSnapshot } = options;
  for (const record of [hostSnapshot, ownSnapshot]) {
    const left = await record?.get();
    if (record === undefined || left === undefined) continue;
    const { snapshot_id: id } = await client.snapshotInfo(device);
    const isLeft =
      left === id || (left === CREATING && id !== null && (await isOfExport(client, id)));
    if (isLeft) await client.snapshotDestroy(id!);
    await record.clear();
  }
}

/** Another export may have created one and not taken it yet: no advice may make its user destroy that. */
async function inOther({ client, device }: SnapshotOptions, error: unknown): Promise<unknown> {
  const { code, message } = error as BackupError;
  if (code !== "DEVICE_IN_OTHER_SNAPSHOT") return error;
  const { snapshot_id: id } = await client
    .snapshotInfo(device)
    .catch(() => ({ snapshot_id: null }));
  const hint =
    "If it belongs to another export, export again when that has ended. " +
    `Only if nothing will take it: ${destroyText(id ?? "ID")}`;
  const why = `${message}, which is not taken yet`;
  return new BackupError("DEVICE_IN_OTHER_SNAPSHOT", why, { hint, cause: error });
}

/** Errors after which a snapshot may have been created. */
const UNKNOWN_OUTCOME = ["CONNECTION_LOST", "RESPONSE_INVALID", "TIMEOUT"];

async function createOwn(options: RecordedOptions, kept: KeptSnapshot | null): Promise<string> {
  const { client, device, signal, stores, limitBytes, hostSnapshot } = options;
  const images = kept === null ? { releasableImages: true } : { readOnlyImages: true };
  const parameters = { devices: [device], stores, limitBytes, ...images };
  await hostSnapshot?.set(CREATING);
  try {
    return (await client.snapshotCreate(parameters, { signal })).id;
  } catch (error) {
    if (!UNKNOWN_OUTCOME.includes((error as BackupError).code)) await hostSnapshot?.clear();
    throw await inOther(options, error);
  }
}

/** Whether one that the export takes itself may be freed. One that a kill may leave unnamed is read again: it keeps all. */
function keptOf({ frees = true, ownSnapshot, hostSnapshot }: RecordedOptions): KeptSnapshot | null {
  if (!frees) return "not_wanted";
  return (ownSnapshot ?? hostSnapshot) === undefined ? "not_remembered" : null;
}

/** Runs `use` on the device's snapshot; destroys it, where it was taken for that, whatever happens. */
export async function withSnapshot<Result>(
  options: SnapshotOptions,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  return await withHostRecord(options, (hostSnapshot) =>
    withRecorded({ ...options, hostSnapshot }, use),
  );
}

async function withRecorded<Result>(
  options: RecordedOptions,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  const { client, signal, onNote, ownSnapshot, hostSnapshot } = options;
  await destroyLeft(options);
  const there = await takenBefore(options);
  if (there !== undefined) {
    const which = `${there.id}, taken at ${there.takenAt}, which already existed`;
    onNote?.(`reads snapshot ${which}: nothing of it is freed`);
    return reading(there, use);
  }
  const kept = keptOf(options);
  const id = await createOwn(options, kept);
  let destroyed: Promise<void> | undefined;
  const destroy = (): Promise<void> => {
    destroyed ??= destroyOwn(options, id);
    return destroyed;
  };
  try {
    await allOf([ownSnapshot, hostSnapshot].map(async (record) => record?.set(id)));
    if (signal?.aborted === true) throw abortedError();
    await client.snapshotTake(id);
    const taken = await takenNow(options, id, kept);
    return await reading({ ...taken, release: () => void destroy() }, use);
  } finally {
    await destroy();
  }
}

/** Reports failures, which end nothing. */
async function destroyOwn(
  { client, ownSnapshot, hostSnapshot, onNote }: RecordedOptions,
  id: string,
): Promise<void> {
  let what = "is kept for now";
  try {
    await client.snapshotDestroy(id);
    what = "is gone; the next export will notice";
    await allOf([ownSnapshot, hostSnapshot].map(async (record) => record?.clear()));
  } catch (error) {
    onNote?.(`snapshot ${id} ${what}: ${(error as Error).message}`);
  }
}

async function reading<Result>(
  snapshot: TakenSnapshot,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  try {
    return await use(snapshot);
  } catch (error) {
    throw await reasonOf(snapshot, error);
  }
}

/** If an image could not be read, the snapshot's own error comes first. */
export async function reasonOf(snapshot: TakenSnapshot, error: unknown): Promise<unknown> {
  if (!(error instanceof BackupError && error.code === "IMAGE_FAILED")) return error;
  try {
    // How much this export has freed by now is unknown here.
    await snapshot.check(Number.POSITIVE_INFINITY);
    return error;
  } catch (reason) {
    return reason;
  }
}
