/**
 * What the main thread and the reactors say to each other. Descriptors are those of the process, so
 * they travel as numbers.
 *
 * ```
 *   main                                   reactor
 *     │── Request {id, …} ────────────────▶ │   one Reply each, in any order
 *     │◀──────────────── Reply {re: id, …} ─│
 *     │◀──────────────── Notice ────────────│   by itself
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
  /** Ticks that a blocked write waits. */
  readonly ticksMax: number;
}

/** Settings of all devices of a reactor. */
export interface ReactorSettings {
  readonly index: number;
  /** Tags that an image's queue may have; its device may have fewer. */
  readonly imageDepth: number;
  /** In what time a store, or the medium of a journal, has to answer. */
  readonly ioTimeoutMs: number;
  /** Submission entries of its ring: all tags of a queue are fetched by one call. */
  readonly ringEntries: number;
  /** One word, which the reactor's loop counts its turns in. */
  readonly heartbeat: SharedArrayBuffer;
  /** The process ends with this status at once when the reactor ends by itself. */
  readonly lostStatus?: number | undefined;
  /** It serves without the mark of an I/O flusher, and says nothing. */
  readonly isFlusherOptional?: boolean | undefined;
}

/** A file of maps, to be mapped whole. */
export interface MapFileRef {
  readonly fd: number;
  readonly lengthBytes: number;
}

/** A diff area: its map, and where its slots are. */
export interface AreaSetup {
  /** What comes late from or for another area is dropped. */
  readonly id: AreaId;
  readonly map: MapFileRef;
  readonly storeCount: number;
  /** Descriptors of the stores, in the order of the slots' store numbers. */
  readonly storeFds: readonly number[];
  /** Extents to begin with: first slot and count, in turn. */
  readonly extents: readonly number[];
  /** When a device asks for slots, and how many it asks for: at first, and when it uses them fast. */
  readonly lowWaterSlots: number;
  readonly wantedSlots: number;
  readonly wantedSlotsMax: number;
  /** Size of a slot: that of the device's chunks, or more. */
  readonly slotBytes: number;
  /** Tags of the image that an earlier daemon has left; absent for a new area. */
  readonly imageDepth?: number;
  readonly overflow: OverflowSetup;
  /** Of a persistent snapshot. */
  readonly journal?: JournalSetup;
  /**
   * What that journal syncs the stores by: the area's own open files of them. That cached data could not be written
   * the kernel tells each open file once, whoever syncs by it.
   */
  readonly syncFds?: readonly number[];
  /** Of an area that an earlier daemon has left. */
  readonly figures?: AreaFigures;
}

/**
 * The area of a snapshot that is held already, before its stores are open: what needs a copy waits for
 * "wakeArea" or "dropArea".
 */
export type SleepingArea = Omit<AreaSetup, "storeFds" | "extents" | "journal" | "syncFds">;
/** Its slots it has asked for. */
export type WakingArea = Omit<AreaSetup, "extents">;

export interface AttachRequest {
  readonly type: "attach";
  readonly tracker: number;
  readonly queue: DeviceQueueStart;
  readonly originalFd: number;
  readonly isBlock: boolean;
  readonly geometry: TrackerGeometry;
  readonly cbt: MapFileRef;
  /** After a recovery. */
  readonly area: SleepingArea | undefined;
  /** Of a persistent tracker. */
  readonly journal?: JournalSetup | undefined;
  /** That do not continue, and that a later boot could find: no write is issued before that is on record. */
  readonly lostAreas?: readonly AreaId[];
  /** As the engine's option. */
  readonly forgetsDiscards?: boolean;
}

/** Before a take: a new diff area. */
export interface PrepareAreaRequest {
  readonly type: "prepareArea";
  readonly tracker: number;
  readonly area: AreaSetup;
}

/** The stores of an area that sleeps are open. */
export interface WakeAreaRequest {
  readonly type: "wakeArea";
  readonly tracker: number;
  readonly area: WakingArea;
}

/** Stops issuing writes to the original; the reply comes when none is in flight any more. */
export interface HoldRequest {
  readonly type: "hold";
  readonly tracker: number;
  /** When it is over by itself, should the main thread never come back. */
  readonly deadlineMs: number;
}

/** The instant of a take: copies into the area begin. */
export interface SwitchRequest {
  readonly type: "switch";
  readonly tracker: number;
  readonly area: AreaId;
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
  /** Which log it is. */
  readonly fd: number;
  readonly logBytes: number;
}

/**
 * An area's journal gets a successor: commits go to both, and with them all that the map has. The reply comes
 * when that is complete, however long it takes: until then the descriptor must stay open.
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
    /** Other areas are short of slots. The notice "returned" comes before the reply. */
    | "giveBackSlots"
    | "dropAreaJournal"
    /** The successor of its journal takes the journal's place, or is given up. */
    | "adoptAreaJournal"
    | "abandonAreaJournal";
  readonly tracker: number;
  readonly area: AreaId;
}

/** Slots of a store, from one on, have lost what was in them. */
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
  /** Offset and length in bytes, in turn. */
  readonly ranges: readonly number[];
}

/** Requests that only name their device. */
export interface DeviceRequest {
  readonly type: "release" | "awaitFrontEnd" | "counters";
  readonly tracker: number;
}

/** A connection to the NBD export of a front, or of an image. Answered with a ServeNbdReply. */
export interface ServeNbdRequest {
  readonly type: "serveNbd";
  readonly tracker: number;
  /** Of the image; null: the front. */
  readonly area: AreaId | null;
  readonly params: DeviceParams;
  /** The socket. */
  readonly fd: number;
  readonly structured: boolean;
  readonly extended: boolean;
  /** Names of those that were agreed on. */
  readonly contexts: readonly string[];
  /** It may not write, whatever others may. */
  readonly readOnly: boolean;
  /** Of the original: of an image's, as they were after its take. Null where nothing is known of them. */
  readonly holes: KnownHoles | null;
  /** Bytes that arrived after the handshake. */
  readonly received: Uint8Array;
}

/** How many clients a front, or an image, has that is an NBD export instead of a device. The reply is a number. */
export interface CountConnectionsRequest {
  readonly type: "countConnections";
  readonly tracker: number;
  /** Of the image; null: the front. */
  readonly area: AreaId | null;
}

export interface StopRequest {
  readonly type: "stop";
}

/** Requests of an area that there is, or was. */
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
  | AreaRequest
  | MarkDirtyRequest
  | MirrorJournalRequest
  | JournalRequest
  | DeviceRequest
  | ServeNbdRequest
  | CountConnectionsRequest
  | StopRequest;

/** More slots for an area, or word that there are none. */
export interface GrantMessage {
  readonly type: "grant";
  readonly tracker: number;
  readonly area: AreaId;
  readonly firstSlot: number;
  /** 0: none; `errno` says why. */
  readonly count: number;
  readonly errno: number;
  /** No answer: what was denied before is denied for this reason now. */
  readonly isAnew?: boolean;
}

/** The thread may compile what its requests will use, while it has nothing else to do. */
export interface WarmUpMessage {
  readonly type: "warmUp";
  /** Whether fronts will have it. */
  readonly zeroCopy: boolean;
}

export interface RequestMessage {
  readonly id: number;
  readonly request: ReactorRequest;
  /** Of a request that carries descriptors. */
  readonly claim?: Claim | undefined;
}

export type ToReactor = RequestMessage | GrantMessage | WarmUpMessage;

export interface SwitchReply {
  /** For how long writes were held, in microseconds. */
  readonly stallUs: number;
}

export interface ServeNbdReply {
  /** False: there is no such device or image, or it has too many connections. */
  readonly isServed: boolean;
}

export interface CloseAreaReply {
  /**
   * Not everything of the area was answered: the notice "areaIdle" comes when it is. Null: the device has no such area, or no
   * more.
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
  /** Absent when it went well. */
  readonly error?: CarriedError;
}

export interface MirrorReply {
  /** Sequence number of the first sector that goes to the successor too; null: the journal failed. */
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
  /** Slots that waited for a chunk go back, as extents: first slot and count, in turn. */
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
  /** The queue's last command came back: its device was stopped, by the main thread or by others. */
  | { readonly notice: "frontEnded"; readonly tracker: number }
  | (AreaNotice & { readonly notice: "imageEnded" })
  | { readonly notice: "error"; readonly message: string };

export type FromReactor = ReactorReply | ReactorNotice;
