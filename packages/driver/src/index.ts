export { Driver, type DriverOptions } from "./driver.js";
export { type DeviceInUse, describeInUse } from "./in-use.js";
export type { DriverExport } from "./nbd-exports.js";
export type { TrackingParameters } from "./parameters.js";
export {
  type BlockDeviceFacts,
  type DriverPorts,
  type Freeze,
  type Freezing,
  machinePorts,
} from "./ports.js";
export {
  isUnfinishedRecord,
  RECORD_SUFFIX,
  recordOf,
  StateFile,
} from "./records/file-names.js";
export type { SnapshotRecord, TrackerRecord } from "./records/records.js";
export { type FoundRecord, ownerTag, readRecords } from "./records/state-directory.js";
export { presentStateDirectory, settingsOf } from "./settings.js";
export { DAEMON_VERSION, INTERFACE_VERSION } from "./version.js";
