/** The content of the records in the state directory. */
import type { FileSystemFreeze, OverflowPolicy } from "@blksnap/api";
import type { AreaId } from "@blksnap/data-plane";
import type { TrackerGeometry } from "@blksnap/engine";
import type { DeviceMarks, LiveNode, Seal } from "@blksnap/linux-block";
import type { EventsRecord } from "../snapshot/events.js";

export interface TrackerRecord {
  readonly id: number;
  /** The original's name at attach, and its target, which identifies the device. */
  readonly device: string;
  readonly identity: string;
  /** For a block device; absent in records of older daemons. */
  readonly marks?: DeviceMarks;
  /** Number N of the front, /dev/ublkbN; null if it is an NBD export. */
  readonly front: number | null;
  readonly geometry: TrackerGeometry;
  /** Negative errno of the last snapshot's first lost block, or 0. */
  readonly errorCode: number;
  /** The area that lost it; absent without a loss, and in records of older daemons. */
  readonly lostArea?: AreaId;
  /** The losses of that area are in its journal, too. */
  readonly isLossKept?: true;
  /** For a persistent tracker: its record in the persistent directory. */
  readonly uuid?: string;
  /** For a live attach: the node above the front. */
  readonly live?: LiveNode;
}

export interface StoreRecord {
  /** As the user gave it. */
  readonly path: string;
  /** Name of the file made in a directory; absent for files and block devices. */
  readonly fileName?: string;
  /** What that name led to when it was opened; absent in records of older daemons, and for memory. */
  readonly identity?: string;
  /** For a block device. */
  readonly marks?: DeviceMarks;
}

/** The content of a slot while the snapshot is persistent; see store-mark.ts. */
export interface StoreMark {
  readonly slot: number;
  /** Null: there is no mark, or it must not be relied on. */
  readonly value: string | null;
}

/** Lost old data of a store: all slots from this one on. */
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
  /** Number N of the image, /dev/ublkbN; null before take, and if it is an NBD export. */
  readonly image: number | null;
  /** For a persistent snapshot: the tracker's record in the persistent directory. */
  readonly uuid?: string;
  /** For a persistent snapshot: the area's journal, whose uuid is the area's; null or absent before take. */
  readonly journal?: string | null;
  /** For a snapshot that returns after a reboot: negative errno of the first block that the area had lost before. */
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
  /** Absent: 256 KiB. */
  readonly slotBytes?: number;
  /** Absent: break-snapshot. */
  readonly onOverflow?: OverflowPolicy;
  /** It survives a reboot. */
  readonly persistent?: boolean;
  /** Images refuse writes; absent: they accept them. */
  readonly readOnlyImages?: boolean;
  /**
   * Images are read-only, and their reader may discard what it has read. `readOnlyImages` is false in this case: it is
   * all that an older daemon knows, and exports must refuse an image that others could have changed.
   */
  readonly releasableImages?: boolean;
  /** What the take did to the file systems on the members. */
  readonly fileSystems?: readonly FileSystemFreeze[];
  readonly stores: readonly StoreRecord[];
  /**
   * The state of the stores at the end, in their order, null if unknown; absent while a daemon writes to them. Not in
   * `stores`, because an older daemon keeps unknown fields there.
   */
  readonly storeSeals?: readonly (Seal | null)[];
  /** For a persistent snapshot none of whose stores has a name of ours. */
  readonly storeMark?: StoreMark;
  /** Losses that some map may not have yet; absent if there are none. */
  readonly storeCuts?: readonly StoreCut[];
  readonly members: readonly MemberRecord[];
}
