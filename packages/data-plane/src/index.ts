export type { KnownHoles } from "./allocation-context.js";
export type { AreaFigures } from "./area-counter.js";
export { AreaEncoder } from "./area-encoder.js";
export type { AreaId } from "./area-id.js";
export { doubtOf, NoAnswerError } from "./claim.js";
export type { DeviceIoCounters } from "./counters.js";
export type { DeviceQueueStart } from "./device-queue.js";
export { type DeviceCounters, DeviceReader } from "./device-reader.js";
export { dirtyContextName } from "./dirty-context.js";
export { type DeviceDurations, DURATION_BOUNDS_US, type DurationCounts } from "./durations.js";
export {
  type FaultPoint,
  faultPoint,
  type GrowthFaultPoint,
  type LiveFaultPoint,
} from "./fault-points.js";
export { giveUpMs } from "./io-ticker.js";
export { AreaReplay, CbtReplay, JournalKind } from "./journal-entries.js";
export type { JournalSetup, LogLocation, LogNeed } from "./journal-io.js";
export type {
  AdoptReply,
  AreaSetup,
  CloseAreaReply,
  GrowReply,
  MapFileRef,
  MirrorReply,
  OverflowSetup,
  ReactorNotice,
  ReactorRequest,
  ServeNbdReply,
  SleepingArea,
  SwitchReply,
  WakingArea,
} from "./messages.js";
export { NBD_IO_BYTES_MAX } from "./nbd-door.js";
export {
  ReactorPool,
  type RunningReactor,
  type StartReactor,
  startReactorThread,
} from "./pool.js";
export { ReactorServer, type ReactorServerOptions } from "./reactor-server.js";
export { SlotServer, type SlotUser } from "./slot-server.js";
export { TURN_UNITS, Turns } from "./turns.js";
