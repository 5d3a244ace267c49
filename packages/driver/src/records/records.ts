/** What the records in the state directory hold. */
import type { FileSystemFreeze, OverflowPolicy } from "@blksnap/api";
import type { AreaId } from "@blksnap/data-plane";
import type { TrackerGeometry } from "@blksnap/engine";
import type { DeviceMarks, LiveNode, Seal } from "@blksnap/linux-block";
import type { EventsRecord } from "../snapshot/events.js";

export interface TrackerRecord {
  readonly id: number;
  /** The original's name at attach, and what it led to: this is what the device is. */
  readonly device: string;
  readonly identity: string;
  /** Of a block device; absent in records of older daemons. */
  readonly marks?: DeviceMarks;
  /** Number N of the front, /dev/ublkbN; null where it is an NBD export. */
  readonly front: number | null;
  readonly geometry: TrackerGeometry;
  /** Negative errno of the last snapshot's first lost block, or 0. */
  readonly errorCode: number;
  /** Whose block that was; absent without one, and in records of older daemons. */
  readonly lostArea?: AreaId;
  /** What that area has lost so far is in its journal, too. */
  readonly isLossKept?: true;
  /** Of a persistent tracker: its record in the persistent directory. */
  readonly uuid?: string;
  /** Of a live attach: the node under which the front is. */
  readonly live?: LiveNode;
}

export interface StoreRecord {
  /** As the user gave it. */
  readonly path: string;
  /** Name of the file made in a directory; absent for files and block devices. */
  readonly fileName?: string;
  /** What was opened by that name; absent in records of older daemons, and for memory. */
  readonly identity?: string;
  /** Of a block device. */
  readonly marks?: DeviceMarks;
}

/** What stands in a slot as long as the snapshot is persistent; see store-mark.ts. */
export interface StoreMark {
  readonly slot: number;
  /** Null: no mark is there, or none that is to be relied on. */
  readonly value: string | null;
}

/** Old data that a store does not have any more: from this slot on. */
export interface StoreCut {
  readonly store: number;
  readonly firstSlotIndex: number;
}

export interface MemberRecord {
  readonly tracker: number;
  /** Its diff area; null before take, absent in records of older daemons: see areaIdOf(). */
  readonly area?: AreaId | null;
  /** Name of the area's map file; null before take. */
  readonly map: string | null;
  /** Number N of the image, /dev/ublkbN; null before take, and where it is an NBD export. */
  readonly image: number | null;
  /** Of a persistent snapshot: the tracker's record in the persistent directory. */
  readonly uuid?: string;
  /** Of a persistent snapshot: the area's journal, whose uuid is the area's; null or absent before take. */
  readonly journal?: string | null;
  /** Of one that comes back after a reboot: negative errno of the first block that the area had lost by then. */
  readonly errorCode?: number;
}

export interface SnapshotRecord extends EventsRecord {
  readonly id: string;
  readonly state: "creating" | "created" | "taking" | "taken" | "destroying";
  readonly createdAt: string;
  readonly takenAt: string | null;
  readonly stallUs: number | null;
  readonly limitBytes: number;
  readonly alignmentBytes: number;
  /** 256 KiB where it is absent. */
  readonly slotBytes?: number;
  /** break-snapshot where it is absent. */
  readonly onOverflow?: OverflowPolicy;
  /** Comes back after a reboot. */
  readonly persistent?: boolean;
  /** Images refuse writes; they take them where it is absent. */
  readonly readOnlyImages?: boolean;
  /**
   * They are read-only, and their reader may discard what it has read. The field above is false then: it is all that an
   * older daemon knows, and exports refuse an image that it says others could have written to.
   */
  readonly releasableImages?: boolean;
  /** What the take did with the file systems on the members. */
  readonly fileSystems?: readonly FileSystemFreeze[];
  readonly stores: readonly StoreRecord[];
  /**
   * How the stores were left, in their order, null where that is not known; absent while a daemon writes to
   * them. Not in `stores`, as an older daemon keeps what it does not know of there.
   */
  readonly storeSeals?: readonly (Seal | null)[];
  /** Of a persistent snapshot without a store whose name is ours. */
  readonly storeMark?: StoreMark;
  /** Losses that some map may not have yet; absent without any. */
  readonly storeCuts?: readonly StoreCut[];
  readonly members: readonly MemberRecord[];
}
