/**
 * The NBD exports: each front, and each image as long as it lives. If users have devices, all exports are read-only;
 * otherwise clients write to fronts, and to images that are not read-only. Releasable images accept trims.
 *
 * ```
 *   front/DEVICE          the present content of the device
 *   image/UUID/DEVICE     its content when snapshot UUID was taken; also image/DEVICE
 * ```
 *
 * DEVICE is the original's path, without /dev/ if it begins with that. An image has a context
 * `qemu:dirty-bitmap:since-N` for each earlier number N of its device, and the same with `-of-GENERATION` appended.
 */
import type { StatusResponse } from "@blksnap/api";
import { type AreaId, dirtyContextName, doubtOf, type ServeNbdReply } from "@blksnap/data-plane";
import {
  type Agreement,
  BASE_ALLOCATION,
  type ContextName,
  type ExportDescription,
  type ExportDirectory,
  nbdUri,
  transmissionFlags,
} from "@blksnap/nbd";
import type { DeviceParams } from "@blksnap/ublk";
import type { DriverContext } from "./context.js";
import type { ServedDevice } from "./frontend/frontend.js";
import type { Registry } from "./registry.js";
import type { Member } from "./snapshot/member.js";
import type { Snapshot } from "./snapshot/snapshot.js";
import { servedParams } from "./tracker/geometry.js";
import { OriginalHoles } from "./tracker/original-holes.js";
import type { Tracker } from "./tracker/tracker.js";

const PREFERRED_BLOCK_BYTES = 4096;
/** The longest discard of an image. */
export const IMAGE_DISCARD_MAX_BYTES: number = 2 ** 30;
const DEVICE_DIRECTORY = "/dev/";

/** A front, or an image. */
export interface DriverExport extends ExportDescription {
  readonly tracker: Tracker;
  /** The device beside the export, or the export's own device. */
  readonly by: ServedDevice | undefined;
  /** The image's area; null for a front. */
  readonly area: AreaId | null;
  readonly params: DeviceParams;
  /** Clients that found it in this form cannot write to it. */
  readonly readOnly?: true;
  /** The reader of this image frees what it has read: to others that part is zeros. */
  readonly isReleasable: boolean;
}

export class NbdExports implements ExportDirectory<DriverExport> {
  /** The socket's path; undefined while no server listens. */
  socketPath: string | undefined;
  /** The TCP addresses; set by the daemon, which listens. */
  listeners: () => StatusResponse["nbd_listeners"] = () => [];
  /** The same exports, for clients that may not write. */
  readonly readOnly: ExportDirectory<DriverExport> = new ReadOnlyExports(this);
  readonly #registry: Registry;
  readonly #context: () => Pick<DriverContext, "reactors" | "logger">;
  /** By tracker, or by area: a handshake may ask for an export more than once. */
  readonly #known = new WeakMap<object, DriverExport>();
  readonly #holes = new OriginalHoles();

  constructor(registry: Registry, context: () => Pick<DriverContext, "reactors" | "logger">) {
    this.#registry = registry;
    this.#context = context;
  }

  *all(): Generator<DriverExport> {
    for (const tracker of this.#registry.trackers.values()) {
      if (hasFront(tracker)) yield this.#front(tracker);
    }
    for (const snapshot of this.#registry.snapshots.values()) {
      for (const member of snapshot.members.values()) {
        const image = this.#image(snapshot, member);
        if (image !== undefined) yield image;
      }
    }
  }

  /** There is no default export: it would change with each device. */
  find(name: string): DriverExport | undefined {
    for (const one of this.all()) {
      if (one.name === name) return one;
      // An image that its reader frees is found only under its full name.
      const hasShortName = one.area !== null && !one.isReleasable;
      if (hasShortName && name === `image/${deviceName(one.tracker.device)}`) return one;
    }
    return undefined;
  }

  frontUri(tracker: Tracker): string | null {
    return hasFront(tracker) ? this.uriOf(frontName(tracker.device)) : null;
  }

  imageUri(snapshot: Snapshot | undefined, tracker: Tracker): string | null {
    const member = snapshot?.members.get(tracker.id);
    const isThere = snapshot !== undefined && member !== undefined && hasImage(snapshot, member);
    return isThere ? this.uriOf(imageName(snapshot.id, tracker.device)) : null;
  }

  /** Passes a connection to the device's reactor. @returns false if the caller has to close it */
  async serve(
    fd: number,
    agreement: Agreement<DriverExport>,
    received: Uint8Array,
  ): Promise<boolean> {
    const { tracker, by, area, params, name, readOnly = false } = agreement.export;
    const { reactors, logger } = this.#context();
    const wantsHoles = agreement.contexts.some((context) => context.name === BASE_ALLOCATION);
    const holes = wantsHoles
      ? await this.#holes.of(agreement.export, tracker, area !== null)
      : null;
    // It is about to go.
    if (by?.isHeld === true) return false;
    try {
      const { isServed } = await reactors.request<ServeNbdReply>(tracker.reactor, {
        type: "serveNbd",
        tracker: tracker.id,
        area,
        params,
        fd,
        structured: agreement.structured,
        extended: agreement.extended,
        contexts: agreement.contexts.map((context) => context.name),
        readOnly,
        holes,
        received,
      });
      if (!isServed) logger.warn({ export: name }, "an NBD connection is refused: too many");
      return isServed;
    } catch (error) {
      logger.warn({ export: name, err: error }, "an NBD connection cannot be served");
      return doubtOf(error) === "served";
    }
  }

  /** Address of an export; null while no server listens. */
  uriOf(name: string): string | null {
    return this.socketPath === undefined ? null : nbdUri(this.socketPath, name);
  }

  #front(tracker: Tracker): DriverExport {
    const known = this.#known.get(tracker);
    // One that has grown is another export to those who connect from then on.
    const { capacityBytes } = tracker.front.exported ?? tracker.geometry;
    if (known?.sizeBytes === capacityBytes) return known;
    const description = `${tracker.device} as it is now`;
    const name = frontName(tracker.device);
    const made = describe({ tracker, by: tracker.front, area: null, name, description });
    this.#known.set(tracker, made);
    return made;
  }

  #image(snapshot: Snapshot, member: Member): DriverExport | undefined {
    const { tracker, area } = member;
    if (area === undefined || !hasImage(snapshot, member)) return undefined;
    const known = this.#known.get(area);
    const hasMissed = tracker.splice?.state === "lost";
    if (known !== undefined && !hasMissed) return known;
    const made = describe({
      tracker,
      by: member.image,
      area: area.id,
      name: imageName(snapshot.id, tracker.device),
      isReleasable: snapshot.releasableImages,
      description: `${tracker.device} as it was at ${snapshot.takenAt ?? "take"}`,
      contexts: hasMissed ? [] : dirtyContexts(tracker),
    });
    this.#known.set(area, made);
    return made;
  }
}

class ReadOnlyExports implements ExportDirectory<DriverExport> {
  readonly #exports: ExportDirectory<DriverExport>;
  /** A handshake may ask for an export more than once. */
  readonly #known = new WeakMap<DriverExport, DriverExport>();

  constructor(exports: ExportDirectory<DriverExport>) {
    this.#exports = exports;
  }

  *all(): Generator<DriverExport> {
    for (const one of this.#exports.all()) yield this.#of(one);
  }

  find(name: string): DriverExport | undefined {
    const found = this.#exports.find(name);
    return found && this.#of(found);
  }

  #of(one: DriverExport): DriverExport {
    const known = this.#known.get(one);
    if (known !== undefined) return known;
    const { rotational } = one.params;
    const flags = transmissionFlags({ readOnly: true, rotational, trims: false });
    const made: DriverExport = { ...one, flags, readOnly: true };
    this.#known.set(one, made);
    return made;
  }
}

type Described = Pick<DriverExport, "tracker" | "by" | "area" | "name" | "description"> & {
  readonly contexts?: readonly ContextName[];
  /** Clients may discard what they have read of the image. */
  readonly isReleasable?: boolean;
};

function describe({ contexts = [], isReleasable = false, ...described }: Described): DriverExport {
  const { tracker, by } = described;
  const params = by?.exported ?? readOnlyParams(tracker, isReleasable);
  const { readOnly, rotational, discardMaxBytes, logicalBlockBytes } = params;
  return {
    ...described,
    isReleasable,
    params,
    sizeBytes: params.capacityBytes,
    blockBytes: logicalBlockBytes,
    preferredBlockBytes: Math.max(PREFERRED_BLOCK_BYTES, logicalBlockBytes),
    flags: transmissionFlags({ readOnly, rotational, trims: discardMaxBytes > 0, releases: true }),
    contexts: [{ name: BASE_ALLOCATION }, ...contexts],
  };
}

function readOnlyParams({ backing, geometry }: Tracker, isReleasable: boolean): DeviceParams {
  return {
    ...servedParams(backing, geometry),
    readOnly: true,
    volatileCache: false,
    fua: false,
    discardMaxBytes: isReleasable ? IMAGE_DISCARD_MAX_BYTES : 0,
    writeZeroesMaxBytes: 0,
  };
}

/** The latest numbers first. None if a diff would be refused. */
function dirtyContexts({ cbt }: Tracker): ContextName[] {
  const { changesNumber, corrupted, generation } = cbt.info();
  if (corrupted) return [];
  return Array.from({ length: changesNumber }, (_, index) => changesNumber - 1 - index).flatMap(
    (since) => [
      { name: dirtyContextName(since) },
      { name: dirtyContextName(since, generation), isUnlisted: true },
    ],
  );
}

function hasFront({ isGone, front }: Tracker): boolean {
  return !isGone && front.isLive;
}

function hasImage({ state }: Snapshot, { tracker, area, image }: Member): boolean {
  return state === "taken" && area !== undefined && image?.isLive === true && !tracker.isGone;
}

function deviceName(device: string): string {
  return device.startsWith(DEVICE_DIRECTORY) ? device.slice(DEVICE_DIRECTORY.length) : device;
}

/** @param device path of the original */
export function frontName(device: string): string {
  return `front/${deviceName(device)}`;
}

/** @param snapshot its id @param device path of the original */
export function imageName(snapshot: string, device: string): string {
  return `image/${snapshot}/${deviceName(device)}`;
}
