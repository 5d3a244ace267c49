/** TypeScript types of the control API, derived from its schemas. */
import type { FromSchema } from "json-schema-to-ts";
import type * as daemonEvents from "./daemon-event-schemas.js";
import type * as daemon from "./daemon-schemas.js";
import type * as events from "./event-schemas.js";
import type * as nbd from "./nbd-schemas.js";
import type * as snapshots from "./snapshot-schemas.js";
import type * as status from "./status-schemas.js";
import type * as trackers from "./tracker-schemas.js";

export type AttachRequest = FromSchema<typeof trackers.attachRequest>;
export type AttachResponse = FromSchema<typeof trackers.attachResponse>;
export type DeviceQuery = FromSchema<typeof trackers.deviceQuery>;
export type DetachQuery = FromSchema<typeof trackers.detachQuery>;
export type DetachResponse = FromSchema<typeof trackers.detachResponse>;
export type GenerationReason = FromSchema<typeof trackers.generationReason>;
export type CbtState = FromSchema<typeof trackers.cbtState>;
export type CbtInfo = FromSchema<typeof trackers.cbtInfo>;
export type CbtMapQuery = FromSchema<typeof trackers.cbtMapQuery>;
export type ByteRange = FromSchema<typeof trackers.byteRange>;
export type MarkDirtyRequest = FromSchema<typeof trackers.markDirtyRequest>;
export type MarkDirtyResponse = FromSchema<typeof trackers.markDirtyResponse>;
export type MarkDirtyFileRequest = FromSchema<typeof trackers.markDirtyFileRequest>;
export type MarkDirtyFileResponse = FromSchema<typeof trackers.markDirtyFileResponse>;
export type DiffQuery = FromSchema<typeof trackers.diffQuery>;
export type DiffHead = FromSchema<typeof trackers.diffHead>;
export type DiffRange = FromSchema<typeof trackers.diffRange>;
export type DiffResponse = FromSchema<typeof trackers.diffResponse>;
export type SnapshotInfo = FromSchema<typeof trackers.snapshotInfo>;

export type OverflowPolicy = FromSchema<typeof snapshots.overflowPolicy>;
export type SnapshotCreateRequest = FromSchema<typeof snapshots.snapshotCreateRequest>;
export type SnapshotCreateProgress = FromSchema<
  typeof snapshots.snapshotCreateProgress
>["progress"];
export type SnapshotCreateResponse = FromSchema<typeof snapshots.snapshotCreateResponse>;
export type SnapshotId = FromSchema<typeof snapshots.snapshotId>;
export type SnapshotSummary = FromSchema<typeof snapshots.snapshotSummary>;
export type SnapshotList = FromSchema<typeof snapshots.snapshotList>;
export type SnapshotAddRequest = FromSchema<typeof snapshots.snapshotAddRequest>;
export type SnapshotAddResponse = FromSchema<typeof snapshots.snapshotAddResponse>;
export type FileSystemFreeze = FromSchema<typeof snapshots.fileSystemFreeze>;
export type SnapshotTakeQuery = FromSchema<typeof snapshots.snapshotTakeQuery>;
export type SnapshotTakeResponse = FromSchema<typeof snapshots.snapshotTakeResponse>;
export type SnapshotEvent = FromSchema<typeof events.snapshotEvent>;
export type EventKind = SnapshotEvent["event"];
export type EventOf<Kind extends EventKind> = Extract<SnapshotEvent, { event: Kind }>;
export type CorruptedEvent = EventOf<"corrupted">;
export type NoSpaceEvent = EventOf<"no_space">;
export type LowFreeSpaceEvent = EventOf<"low_free_space">;
export type StoreHungEvent = EventOf<"store_hung">;
export type StoreAnsweredEvent = EventOf<"store_answered">;
export type MissedEvent = EventOf<"missed">;
export type WaitEventQuery = FromSchema<typeof events.waitEventQuery>;
export type WaitEventResponse = FromSchema<typeof events.waitEventResponse>;
export type ListEventsResponse = FromSchema<typeof events.listEventsResponse>;
export type FollowEventsHeaders = FromSchema<typeof events.followEventsHeaders>;
export type FollowEventsQuery = FromSchema<typeof events.followEventsQuery>;

export type DaemonEvent = FromSchema<(typeof daemonEvents.DAEMON_EVENTS)[number]>;
export type DaemonEventKind = DaemonEvent["event"];
export type DaemonEventOf<Kind extends DaemonEventKind> = Extract<DaemonEvent, { event: Kind }>;
export type DaemonEventsQuery = FromSchema<typeof daemonEvents.daemonEventsQuery>;
export type DaemonEventsHeaders = FromSchema<typeof daemonEvents.daemonEventsHeaders>;

export type DaemonUpgradeResponse = FromSchema<typeof daemon.daemonUpgradeResponse>;
export type DaemonStopRequest = FromSchema<typeof daemon.daemonStopRequest>;
export type DaemonStopResponse = FromSchema<typeof daemon.daemonStopResponse>;
export type DoctorCheck = FromSchema<typeof daemon.doctorCheck>;
export type DoctorReport = FromSchema<typeof daemon.doctorReport>;
export type ConfigReport = FromSchema<typeof daemon.configReport>;

export type NbdListener = FromSchema<typeof nbd.nbdListener>;
export type NbdListenerOpenRequest = FromSchema<typeof nbd.nbdListenerOpenRequest>;
export type NbdListenerQuery = FromSchema<typeof nbd.nbdListenerQuery>;
export type NbdListenerList = FromSchema<typeof nbd.nbdListenerList>;

export type VersionResponse = FromSchema<typeof status.versionResponse>;
export type ReactorStatus = FromSchema<typeof status.reactorStatus>;
export type TrackerStatus = FromSchema<typeof status.trackerStatus>;
export type SnapshotDeviceStatus = FromSchema<typeof status.snapshotDeviceStatus>;
export type StoreStatus = FromSchema<typeof status.storeStatus>;
export type SnapshotStatus = FromSchema<typeof status.snapshotStatus>;
export type StatusResponse = FromSchema<typeof status.statusResponse>;
export type ErrorBody = FromSchema<typeof status.errorBody>;
export type ErrorResponse = FromSchema<typeof status.errorResponse>;
