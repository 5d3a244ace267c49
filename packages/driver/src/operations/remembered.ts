/**
 * Persistent trackers that are on the medium but not served: their device is away, was replaced by another one, or was
 * detached. Each boot waits for devices that are to be attached automatically, until users give them up.
 */
import { resolve } from "node:path";
import { ControlError, type DetachResponse } from "@blksnap/api";
import type { DriverContext } from "../context.js";
import { KeptFile } from "../records/file-names.js";
import { type PersistentTrackerRecord, trackerRecords } from "../records/tracker-records.js";
import type { Registry } from "../registry.js";
import { findPersistent, identityOf } from "../system/path-target.js";

/** Errors of a detach whose path names nothing that is attached. */
const NOTHING_ATTACHED: ReadonlySet<string> = new Set([
  "NOT_ATTACHED",
  "DEVICE_NOT_FOUND",
  "DEVICE_FAILED",
]);

type RememberedContext = Pick<DriverContext, "persistent" | "logger" | "blockDevices">;

/**
 * Detaches a device, and keeps nothing of it. If nothing is attached, forgets its record on the medium.
 * @param registry the attached devices
 * @param detach detaches an attached device
 * @throws ControlError as detach does; PERSISTENT_STATE_UNUSABLE, ALREADY_RUNNING
 */
export async function detachForGood(
  context: RememberedContext,
  registry: Pick<Registry, "findTracker">,
  path: string,
  detach: () => Promise<DetachResponse>,
): Promise<DetachResponse> {
  try {
    return await detach();
  } catch (error) {
    if (!NOTHING_ATTACHED.has((error as ControlError).code)) throw error;
    // The detach of an attached device has failed, perhaps as its last writes were lost: that is reported only once.
    const attached = await registry.findTracker(path).catch(() => undefined);
    if (attached !== undefined) throw error;
    const remembered = await rememberedOf(context);
    const wanted = await wantedOf(context, path, remembered);
    for (const record of wanted) await forgetRemembered(context, record);
    const [first] = wanted;
    if (first === undefined) throw withNames(error as ControlError, remembered);
    return { device: first.device, front: "" };
  }
}

async function rememberedOf({ persistent }: RememberedContext): Promise<PersistentTrackerRecord[]> {
  persistent.assertAnswers();
  if (!(await persistent.exists())) return [];
  await persistent.own();
  const records = await trackerRecords(persistent);
  return records.filter(({ uuid }) => !persistent.inUse.has(uuid));
}

/** Records of the device that the path leads to; if there are none, records with this name. */
async function wantedOf(
  { blockDevices: { lookUp } }: RememberedContext,
  path: string,
  remembered: readonly PersistentTrackerRecord[],
): Promise<PersistentTrackerRecord[]> {
  const identity = await identityOf(path, lookUp).catch(() => undefined);
  const there: PersistentTrackerRecord[] = [];
  if (identity !== undefined) {
    for (const record of remembered) {
      const openAt = await findPersistent(record);
      if (openAt === undefined) continue;
      const its = await identityOf(openAt, lookUp).catch(() => undefined);
      if (its === identity) there.push(record);
    }
  }
  if (there.length > 0) return there;
  const name = resolve(path);
  return remembered.filter((record) => namesOf(record).includes(name));
}

/** Its name at attach, and udev's links with its UUIDs, which only a copy of it can have, too. */
function namesOf({ device, tracking: { identity } }: PersistentTrackerRecord): string[] {
  const { dmUuid, partUuid, contentUuid } = identity;
  return [
    device,
    ...(dmUuid === null ? [] : [`/dev/disk/by-id/dm-uuid-${dmUuid}`]),
    ...(partUuid === null ? [] : [`/dev/disk/by-partuuid/${partUuid}`]),
    ...(contentUuid === null ? [] : [`/dev/disk/by-uuid/${contentUuid}`]),
  ];
}

/** @throws ControlError PERSISTENT_STATE_UNUSABLE, also if the medium does not answer */
export async function forgetRemembered(
  { persistent, logger }: Pick<RememberedContext, "persistent" | "logger">,
  { uuid, device }: Pick<PersistentTrackerRecord, "uuid" | "device">,
): Promise<void> {
  if (persistent.inUse.has(uuid)) {
    throw new ControlError("DEVICE_BUSY", `${device} is being attached`);
  }
  // Nothing begins with the record before it is gone, even if that is late.
  persistent.inUse.add(uuid);
  const removing = async (): Promise<void> => {
    try {
      // In this order it can be repeated: without a record, nothing would find the journal.
      await persistent.removeFile(KeptFile.cbtJournal.name(uuid));
      await persistent.removeRecord(KeptFile.trackerRecord.name(uuid));
    } finally {
      persistent.inUse.delete(uuid);
    }
  };
  await persistent.inTime(removing());
  logger.warn({ device }, "its record is removed: the tracker was remembered, but not attached");
}

function withNames(
  error: ControlError,
  remembered: readonly PersistentTrackerRecord[],
): ControlError {
  if (remembered.length === 0) return error;
  const names = remembered.map((record) => {
    const [device, ...stable] = namesOf(record);
    return stable.length === 0 ? device : `${device} (${stable.join(", ")})`;
  });
  const known = `Remembered and not attached: ${names.join("; ")}`;
  const hint = error.hint === undefined ? known : `${error.hint}. ${known}`;
  const { code, message, errnoName } = error;
  const errno = errnoName === undefined ? {} : { errnoName };
  return new ControlError(code, message, { cause: error, hint, ...errno });
}
