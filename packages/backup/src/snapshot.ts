/** The snapshot that an export reads: one that the device is in already, or one of its own. */
import type { BlksnapClient } from "@blksnap/client";
import { abortedError, BackupError } from "./errors.js";
import type { Remembered } from "./remembered.js";

/** What is asked of the daemon. */
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
/** The parts of `status` that are read. */
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
  /** Of a snapshot that is taken for the export. */
  readonly stores: readonly string[];
  readonly limitBytes: number;
  readonly signal?: AbortSignal | undefined;
  /**
   * Has the id of the snapshot that was taken for the export, for as long as there is one: of a killed export it would
   * stay, and every later one would read it again.
   */
  readonly ownSnapshot?: Remembered | undefined;
  /**
   * Frees what was read in the diff storage, while it goes on: only of a snapshot that is taken for the export, and
   * remembered. Others cannot read that snapshot then. Default: false.
   */
  readonly frees?: boolean | undefined;
  /** Told what is not as it should be, and ends nothing. */
  readonly onNote?: ((text: string) => void) | undefined;
}

/** A device in a snapshot that is taken. */
export interface TakenSnapshot {
  readonly id: string;
  /** The original. */
  readonly device: string;
  readonly front: string;
  readonly image: string;
  /** Address of the image's export; null where no server listens. */
  readonly exported: string | null;
  readonly takenAt: string;
  readonly capacityBytes: number;
  readonly generationId: string;
  readonly changesNumber: number;
  /** It was taken for this export: nobody else may read its image, and parts of that may be freed. */
  readonly isFreed: boolean;
  /**
   * Fails unless the image is still this one, and whole.
   * @param freedBytes that this export has freed of it, at most. Default: none
   */
  readonly check: (freedBytes?: number) => Promise<void>;
  /**
   * Begins to destroy it, where it was taken for this export: what was read is checked, and its image closed. What is
   * left to do at the target needs neither.
   */
  readonly release: () => void;
}

/** Whether the device is in a taken snapshot, and as what. @param freed the id of the one that was taken to be freed */
async function takenOf(
  { client, device }: SnapshotOptions,
  freed?: string,
): Promise<TakenSnapshot | undefined> {
  const info = await client.snapshotInfo(device);
  const { snapshot_id: id, image } = info;
  if (id === null || image === null) return undefined;
  // Not with that: a number from before another's take would be that of an earlier snapshot.
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

/** Fails unless the image is still this one, and has what the device held, all of whose changes are known. */
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
  // Fails where writes were missed.
  settled(cbt);
}

/**
 * Fails unless the image shows what the device held: what is discarded from it reads as zeros, what is written to it
 * is not the device's, and no diff lists either. Its counters begin anew with each daemon.
 */
function checkUnchanged(snapshot: StatusParts["snapshots"][number], original: string): void {
  const { id, releasable_images, read_only_images, resumed } = snapshot;
  const ofDevice = deviceIn(snapshot, original);
  // Whether anything was freed is not asked: an earlier daemon's counters are gone, and it may be at this moment.
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

/** Fails where others have freed parts of the image of an own snapshot, which nobody can write to. */
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

/** Destroys the snapshot that a killed export of this device to this place has left. */
async function destroyLeft({ client, device, ownSnapshot }: SnapshotOptions): Promise<void> {
  if (ownSnapshot === undefined) return;
  const id = await ownSnapshot.get();
  if (id === undefined) return;
  const { snapshot_id } = await client.snapshotInfo(device);
  if (snapshot_id === id) await client.snapshotDestroy(id);
  await ownSnapshot.clear();
}

/** Another export may have made one for itself, and not taken it yet: no advice may have its user destroy that. */
function inOther(error: unknown): unknown {
  const { code, message } = error as BackupError;
  if (code !== "DEVICE_IN_OTHER_SNAPSHOT") return error;
  const hint =
    "If it belongs to another export, export again when that has ended. Destroy it only if nothing will take it";
  const why = `${message}, which is not taken yet`;
  return new BackupError("DEVICE_IN_OTHER_SNAPSHOT", why, { hint, cause: error });
}

/** Runs `use` on the device's snapshot; destroys it, where it was taken for that, whatever happens. */
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
  // One that nothing remembers may be left by a kill, and is read again then: it has to keep all.
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

/** What goes wrong is told, and ends nothing. */
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

/** Where an image could not be read, the reason that its snapshot has comes first. */
async function reading<Result>(
  snapshot: TakenSnapshot,
  use: (snapshot: TakenSnapshot) => Promise<Result>,
): Promise<Result> {
  try {
    return await use(snapshot);
  } catch (error) {
    // How much this export itself has freed by now is not known here.
    const isImage = error instanceof BackupError && error.code === "IMAGE_FAILED";
    if (isImage) await snapshot.check(Number.POSITIVE_INFINITY);
    throw error;
  }
}
