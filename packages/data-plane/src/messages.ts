/**
 * The messages between main thread and reactors. Descriptors belong to the process, so they travel as numbers.
 *
 * ```
 *   main                                   reactor
 *     │── Request {id, …} ────────────────▶ │   one Reply each, in any order
 *     │◀──────────────── Reply {re: id, …} ─│
 *     │◀──────────────── Notice ────────────│   unasked
 *     │── Grant ──────────────────────────▶ │   answer to the notice "slots"
 * ```
 */
import type { TrackerGeometry } from "@blksnap/engine";
import type { DeviceParams } from "@blksnap/ublk";
import type { KnownHoles } from "./allocation-context.js";
import type { AreaFigures } from "./area-counter.js";
import type { AreaId } from "./area-id.js";
import type { CarriedError } from "./carried-error.js";
import type { Claim } from "./claim.js";
import type { DeviceQueueStart } from "./device-queue.js";
import type { JournalSetup, LogNeed } from "./journal-io.js";

/** The policy for a reactor. */
export interface OverflowSetup {
  /** The engine's OverflowPolicy. */
  readonly policy: number;
  readonly tickMs: number;
  /** Ticks that a blocked write waits for room. */
  readonly ticksMax: number;
}

/** Settings of all devices of a reactor. */
export interface ReactorSettings {
  readonly index: number;
  /** Most tags of an image's queue; its device may have fewer. */
  readonly imageDepth: number;
  /** Time limit of a store, and of the medium of a journal. */
  readonly ioTimeoutMs: number;
  /** Submission entries of its ring: one call fetches all tags of a queue. */
  readonly ringEntries: number;
  /** One word, in which the reactor's loop counts its turns. */
  readonly heartbeat: SharedArrayBuffer;
  /** The process exits with this status at once if the reactor ends by itself. */
  readonly lostStatus?: number | undefined;
  /** It serves without the mark of an I/O flusher, and does not report that. */
  readonly isFlusherOptional?: boolean | undefined;
}

/** A map's file, to be mapped as a whole. */
export interface MapFileRef {
  readonly fd: number;
  readonly lengthBytes: number;
}

/** A diff area: its map, and where its slots are. */
export interface AreaSetup {
  /** Late messages from or for another area are dropped. */
  readonly id: AreaId;
  readonly map: MapFileRef;
  readonly storeCount: number;
  /** Descriptors of the stores, in the order of the slots' store numbers. */
  readonly storeFds: readonly number[];
  /** First extents: first slot and count, alternating. */
  readonly extents: readonly number[];
  /** When a device asks for slots, and for how many: at first, and when it uses them fast. */
  readonly lowWaterSlots: number;
  readonly wantedSlots: number;
  readonly wantedSlotsMax: number;
  /** Size of a slot: that of the device's chunks, or more. */
  readonly slotBytes: number;
  /** Tags of the image that an earlier daemon has left; absent for a new area. */
  readonly imageDepth?: number;
  readonly overflow: OverflowSetup;
  /** Absent unless the snapshot is persistent. */
  readonly journal?: JournalSetup;
  /**
   * Descriptors for the journal's syncs of the stores: open files of the area's own, because the kernel reports a
   * failed write of cached data once per open file, to the caller that syncs it first.
   */
  readonly syncFds?: readonly number[];
  /** Of an area that an earlier daemon has left. */
  readonly figures?: AreaFigures;
}

/**
 * The area of a recovered snapshot before its stores are open: requests that need a copy wait for "wakeArea" or
 * "dropArea".
 */
export type SleepingArea = Omit<AreaSetup, "storeFds" | "extents" | "journal" | "syncFds">;
/** The area has asked for its slots itself. */
export type WakingArea = Omit<AreaSetup, "extents">;

export interface AttachRequest {
  readonly type: "attach";
  readonly tracker: number;
  readonly queue: DeviceQueueStart;
  readonly originalFd: number;
  readonly isBlock: boolean;
  readonly geometry: TrackerGeometry;
  readonly cbt: MapFileRef;
  /** Defined after a recovery. */
  readonly area: SleepingArea | undefined;
  /** Defined for a persistent tracker. */
  readonly journal?: JournalSetup | undefined;
  /** Areas that do not continue but that a later boot could find: no write is issued before their loss is recorded. */
  readonly lostAreas?: readonly AreaId[];
  /** As the engine's option. */
  readonly forgetsDiscards?: boolean;
}

/**
 * The original has become larger: while no write is in flight, its map and its journal are replaced by others. Answered
 * with a GrowReply.
 */
export interface GrowRequest {
  readonly type: "grow";
  readonly tracker: number;
  /** As before, but for the capacity. */
  readonly geometry: TrackerGeometry;
  /** New: nothing is marked in it. */
  readonly cbt: MapFileRef;
  /** Of a persistent tracker; without one it has none any more. */
  readonly journal: JournalSetup | undefined;
  /** When its writes continue, whether it has grown or not. */
  readonly deadlineMs: number;
}

/** Before a take: a new diff area. */
export interface PrepareAreaRequest {
  readonly type: "prepareArea";
  readonly tracker: number;
  readonly area: AreaSetup;
}

/** Opens the stores of an area that sleeps. */
export interface WakeAreaRequest {
  readonly type: "wakeArea";
  readonly tracker: number;
  readonly area: WakingArea;
}

/** Stops issuing writes to the originals; the reply comes when none is in flight. */
export interface HoldRequest {
  readonly type: "hold";
  readonly trackers: readonly number[];
  /** The hold ends by itself after this time, in case the main thread does not end it. */
  readonly deadlineMs: number;
}

/** The instant of a take: copies into the areas begin. */
export interface SwitchRequest {
  readonly type: "switch";
  readonly areas: readonly { readonly tracker: number; readonly area: AreaId }[];
}

/** Ends holds without a take. Devices that hold nothing, or do not exist, are no error. */
export interface ReleaseRequest {
  readonly type: "release";
  readonly trackers: readonly number[];
}

export interface OpenImageRequest {
  readonly type: "openImage";
  readonly tracker: number;
  readonly area: AreaId;
  readonly queue: DeviceQueueStart;
}

/** A tracker's journal gets a successor: commits go to both until "adoptJournal". */
export interface MirrorJournalRequest {
  readonly type: "mirrorJournal";
  readonly tracker: number;
  readonly fd: number;
  readonly logOffsetBytes: number;
  readonly logBytes: number;
}

/** Of a tracker's journal. */
export interface JournalRequest {
  readonly type: "adoptJournal" | "dropJournal" | "commitJournal";
  readonly tracker: number;
}

/** The log of an area's journal, or of its successor, has become longer. */
export interface GrowAreaJournalRequest {
  readonly type: "growAreaJournal";
  readonly tracker: number;
  readonly area: AreaId;
  /** The descriptor of the log. */
  readonly fd: number;
  readonly logBytes: number;
}

/**
 * An area's journal gets a successor: commits go to both, and the whole map to the successor. The reply comes when that
 * is complete, however long it takes: until then the descriptor must stay open.
 */
export interface CompactAreaJournalRequest {
  readonly type: "compactAreaJournal";
  readonly tracker: number;
  readonly area: AreaId;
  readonly fd: number;
  readonly logOffsetBytes: number;
  readonly logBytes: number;
}

/** Requests that only name their area. */
export interface NamedAreaRequest {
  readonly type:
    | "dropArea"
    | "closeArea"
    | "awaitImageEnd"
    | "lostRanges"
    /** Other areas are short of slots. The notice "returned" precedes the reply. */
    | "giveBackSlots"
    | "dropAreaJournal"
    /** The successor of the area's journal takes the journal's place, or is given up. */
    | "adoptAreaJournal"
    | "abandonAreaJournal";
  readonly tracker: number;
  readonly area: AreaId;
}

/** The content of a store's slots, from one on, is lost. */
export interface LoseSlotsRequest {
  readonly type: "loseSlots";
  readonly tracker: number;
  readonly area: AreaId;
  readonly store: number;
  readonly firstSlotIndex: number;
}

export interface MarkDirtyRequest {
  readonly type: "markDirty";
  readonly tracker: number;
  /** Offset and length in bytes, alternating. */
  readonly ranges: readonly number[];
}

/** Requests that only name their device. */
export interface DeviceRequest {
  readonly type: "awaitFrontEnd" | "counters";
  readonly tracker: number;
}

/** A connection to the NBD export of a front or an image. Answered with a ServeNbdReply. */
export interface ServeNbdRequest {
  readonly type: "serveNbd";
  readonly tracker: number;
  /** The image's area; null: the front. */
  readonly area: AreaId | null;
  readonly params: DeviceParams;
  /** The socket. */
  readonly fd: number;
  readonly structured: boolean;
  readonly extended: boolean;
  /** Names of the negotiated contexts. */
  readonly contexts: readonly string[];
  /** This connection may not write, even if others may. */
  readonly readOnly: boolean;
  /** Holes of the original; for an image, holes that it had after the take. Null if they are unknown. */
  readonly holes: KnownHoles | null;
  /** Bytes that arrived after the handshake. */
  readonly received: Uint8Array;
}

/** Asks for the number of clients of a front or image that is an NBD export. The reply is a number. */
export interface CountConnectionsRequest {
  readonly type: "countConnections";
  readonly tracker: number;
  /** The image's area; null: the front. */
  readonly area: AreaId | null;
}

export interface StopRequest {
  readonly type: "stop";
}

/** Requests for an existing or former area. */
export type AreaRequest =
  | OpenImageRequest
  | LoseSlotsRequest
  | GrowAreaJournalRequest
  | CompactAreaJournalRequest
  | NamedAreaRequest;

export type ReactorRequest =
  | AttachRequest
  | PrepareAreaRequest
  | WakeAreaRequest
  | HoldRequest
  | SwitchRequest
  | ReleaseRequest
  | AreaRequest
  | MarkDirtyRequest
  | GrowRequest
  | MirrorJournalRequest
  | JournalRequest
  | DeviceRequest
  | ServeNbdRequest
  | CountConnectionsRequest
  | StopRequest;

/** More slots for an area, or a denial. */
export interface GrantMessage {
  readonly type: "grant";
  readonly tracker: number;
  readonly area: AreaId;
  readonly firstSlot: number;
  /** 0: a denial, with its reason in `errno`. */
  readonly count: number;
  readonly errno: number;
  /** Not an answer: changes the reason of an earlier denial. */
  readonly isUpdate?: boolean;
}

/** The thread may compile the data path while it has nothing else to do. */
export interface WarmUpMessage {
  readonly type: "warmUp";
  /** Whether fronts will have it. */
  readonly zeroCopy: boolean;
}

export interface RequestMessage {
  readonly id: number;
  readonly request: ReactorRequest;
  /** Present if the request carries descriptors. */
  readonly claim?: Claim | undefined;
}

export type ToReactor = RequestMessage | GrantMessage | WarmUpMessage;

export interface SwitchReply {
  /** How long writes were held at most, in microseconds; 0 without devices. */
  readonly stallUs: number;
}

export interface GrowReply {
  /** Undefined: it has grown. Else nothing has changed. */
  readonly why: string | undefined;
}

export interface ServeNbdReply {
  /** False: no such device or image, or it has too many connections. */
  readonly isServed: boolean;
}

export interface CloseAreaReply {
  /**
   * True: some I/O of the area is unanswered; the notice "areaIdle" follows when it is. Null: the device has no such
   * area, or no longer.
   */
  readonly isLate: boolean | null;
}

export interface LostRange {
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

export interface ReactorReply {
  readonly re: number;
  readonly value?: unknown;
  /** Absent after success. */
  readonly error?: CarriedError;
}

export interface MirrorReply {
  /**
   * Sequence number of the first sector that goes to the successor, too; null: the journal has failed, or has no use for
   * a successor.
   */
  readonly firstSequence: number | null;
}

export interface AdoptReply {
  /** False: the successor missed a commit, and the old journal continues. */
  readonly adopted: boolean;
}

interface AreaNotice {
  readonly tracker: number;
  readonly area: AreaId;
}

export type ReactorNotice =
  | { readonly notice: "ready" }
  | (AreaNotice & { readonly notice: "slots"; readonly wanted: number })
  | (AreaNotice & { readonly notice: "freed"; readonly slots: readonly number[] })
  /** Unused slots go back, as extents: first slot and count, alternating. */
  | (AreaNotice & { readonly notice: "returned"; readonly extents: readonly number[] })
  | (AreaNotice & { readonly notice: "fault"; readonly errno: number })
  | (AreaNotice & { readonly notice: "blocked" })
  | (AreaNotice & { readonly notice: "storeHung" | "storeAnswered"; readonly store: number })
  | (AreaNotice & { readonly notice: "areaIdle" })
  | (AreaNotice & { readonly notice: "areaJournalLow"; readonly need: LogNeed })
  | (AreaNotice & { readonly notice: "areaJournalFault"; readonly errno: number })
  | { readonly notice: "journalLow"; readonly tracker: number }
  | { readonly notice: "journalFault"; readonly tracker: number; readonly errno: number }
  | { readonly notice: "holdExpired"; readonly tracker: number }
  /** The queue's last command has completed: the device was stopped, by the main thread or by others. */
  | { readonly notice: "frontEnded"; readonly tracker: number }
  | (AreaNotice & { readonly notice: "imageEnded" })
  | { readonly notice: "error"; readonly message: string };

export type FromReactor = ReactorReply | ReactorNotice;
