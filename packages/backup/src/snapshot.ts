/** The snapshot that an export reads: the device's existing one, or its own. */
import type { BlksnapClient } from "@blksnap/client";
import { abortedError, BackupError } from "./errors.js";
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

export interface SnapshotOptions {
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
   * Frees in the diff storage what was read, during the export: only in its own snapshot, with its id stored. Others
   * then cannot read that snapshot. Default: false.
   */
  readonly frees?: boolean | undefined;
  /** Called with findings that end nothing. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/** A device in a taken snapshot. */
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
  /** The export's own: no other program may read its image, whose parts may be freed. */
  readonly isFreed: boolean;
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

/** The device's taken snapshot, if any. @param freed id of the snapshot that was taken to be freed */
async function takenOf(
  { client, device }: SnapshotOptions,
  freed?: string,
): Promise<TakenSnapshot | undefined> {
  const info = await client.snapshotInfo(device);
  const { snapshot_id: id, image } = info;
  if (id === null || image === null) return undefined;
  // Not together with the status: a number from before another's take would belong to an earlier snapshot.
  const answers = await Promise.allSettled([client.cbtInfo(device), statusOf(client, id)]);
  const [cbt, status] = [settled(answers[0]), settled(answers[1])];
  const takenAt = status?.taken_at;
  if (takenAt === undefined || takenAt === null) throw gone(info.device, id);
  const taken: TakenSnapshot = {
    id,
    device: info.device,
    front: info.front,
    image,
    exported: info.nbd_uri,
    takenAt,
    capacityBytes: cbt.capacity_bytes,
    generationId: cbt.generation_id,
    changesNumber: cbt.changes_number,
    isFreed: id === freed,
    check: (freedBytes = 0) => {
      const named = { id, device: info.device, image, isFreed: id === freed };
      return checkTaken({ client, device }, named, freedBytes);
    },
    release: () => undefined,
  };
  await taken.check();
  return taken;
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
  {
    id,
    device: original,
    image,
    isFreed,
  }: Pick<TakenSnapshot, "id" | "device" | "image" | "isFreed">,
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
  if (isFreed) checkOwn(snapshot, original, freedBytes);
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
    const hint =
      "Export again when that has ended. If it was killed: run that again, or destroy its snapshot";
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

/** Destroys the snapshot that a killed export of this device to this target has left. */
async function destroyLeft({ client, device, ownSnapshot }: SnapshotOptions): Promise<void> {
  if (ownSnapshot === undefined) return;
  const id = await ownSnapshot.get();
  if (id === undefined) return;
  const { snapshot_id } = await client.snapshotInfo(device);
  if (snapshot_id === id) await client.snapshotDestroy(id);
  await ownSnapshot.clear();
}

/** Another export may have created one and not taken it yet: no advice may make its user destroy that. */
function inOther(error: unknown): unknown {
  const { code, message } = error as BackupError;
  if (code !== "DEVICE_IN_OTHER_SNAPSHOT") return error;
  const hint =
    "If it belongs to another export, export again when that has ended. Destroy it only if nothing will take it";
  const why = `${message}, which is not taken yet`;
  return new BackupError("DEVICE_IN_OTHER_SNAPSHOT", why, { hint, cause: error });
}

/** Runs `use` on the device's snapshot; destroys an own one, whatever happens. */
export async function withSnapshot<Result>(
  options: SnapshotOptions,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  const { client, device, signal, onNote, ownSnapshot } = options;
  await destroyLeft(options);
  const there = await takenOf(options);
  if (there !== undefined) {
    onNote?.(`reads snapshot ${there.id}, taken at ${there.takenAt}, which already existed`);
    return reading(there, use);
  }
  const { stores, limitBytes } = options;
  // A snapshot whose id is not stored may survive a kill and is read again then, so nothing of it is freed.
  const isFreed = options.frees === true && ownSnapshot !== undefined;
  const images = isFreed ? { releasableImages: true } : { readOnlyImages: true };
  const parameters = { devices: [device], stores, limitBytes, ...images };
  const { id } = await client
    .snapshotCreate(parameters, { signal })
    .catch((error: unknown) => Promise.reject(inOther(error)));
  let destroyed: Promise<void> | undefined;
  const destroy = (): Promise<void> => {
    destroyed ??= destroyOwn(options, id);
    return destroyed;
  };
  try {
    await ownSnapshot?.set(id);
    if (signal?.aborted === true) throw abortedError();
    await client.snapshotTake(id);
    const taken = await takenOf(options, isFreed ? id : undefined);
    if (taken?.id !== id) throw gone(device, id);
    return await reading({ ...taken, release: () => void destroy() }, use);
  } finally {
    await destroy();
  }
}

/** Reports failures, which end nothing. */
async function destroyOwn(
  { client, ownSnapshot, onNote }: SnapshotOptions,
  id: string,
): Promise<void> {
  let what = "is kept for now";
  try {
    await client.snapshotDestroy(id);
    what = "is gone; the next export will notice";
    await ownSnapshot?.clear();
  } catch (error) {
    onNote?.(`snapshot ${id} ${what}: ${(error as Error).message}`);
  }
}

/** If an image could not be read, the snapshot's own error comes first. */
async function reading<Result>(
  snapshot: TakenSnapshot,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  try {
    return await use(snapshot);
  } catch (error) {
    // How much this export has freed by now is unknown here.
    const isImage = error instanceof BackupError && error.code === "IMAGE_FAILED";
    if (isImage) await snapshot.check(Number.POSITIVE_INFINITY);
    throw error;
  }
}
