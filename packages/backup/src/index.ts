/** Backups of tracked devices. */
export {
  type Collected,
  collectGarbage,
  type Damage,
  isOfFuture,
  type Keep,
  keptPoints,
  type PruneOptions,
  prune,
  type Verified,
  verify,
} from "./care.js";
export type { KeptReason } from "./done-chunks.js";
export { BackupError } from "./errors.js";
export { exportQcow2, type Qcow2Export, type Qcow2ExportOptions } from "./export-qcow2.js";
export { exportRaw, type RawExport, type RawExportOptions } from "./export-raw.js";
export { type ExportOptions, type ExportPlan, exportToStore } from "./export-store.js";
export {
  exportStream,
  type StreamExport,
  type StreamExportOptions,
} from "./export-stream.js";
export type { Files } from "./files.js";
export { openAllocated } from "./free-space.js";
export type { Manifest } from "./manifest.js";
export type { ObjectEntry, Objects } from "./objects.js";
export { checkApart, checkOpenApart, checkUntracked } from "./place.js";
export type { Wanted } from "./plan.js";
export type { PointServer, PointServerOptions } from "./point-server.js";
export { checkMeant, checkReadable, findPoint, isMeant, type PointWish } from "./points.js";
export type { OnProgress, Progress } from "./progress.js";
export { type TargetKind, targetKind } from "./raw-target.js";
export { type Restored, type RestoreOptions, restore } from "./restore.js";
export {
  restoreStream,
  type StreamRestored,
  type StreamRestoreOptions,
  verifyStream,
} from "./restore-stream.js";
export { openS3, type S3Options } from "./s3-objects.js";
export { servePoint } from "./serve-point.js";
export type { BackupClient } from "./snapshot.js";
export { type ImageReader, openImage } from "./source.js";
export { BackupStore, type DamagedPoint } from "./store.js";
export { type DescriptorSink, descriptorSink, type StreamSink } from "./stream-sink.js";
export {
  type CopiesVerified,
  type CopyDamage,
  holdsQcow2,
  isRawCopy,
  type VerifyQcow2Options,
  type VerifyRawOptions,
  verifyQcow2,
  verifyRaw,
} from "./verify-copies.js";
