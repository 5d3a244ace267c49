export { firstMapBytes, isWholeMap, type MapRange } from "./area-map-layout.js";
export { type CbtBlockSizeRule, cbtBlockShift } from "./cbt-block-size.js";
export type { CbtCheckpoint } from "./cbt-checkpoint.js";
export { CbtReason } from "./cbt-layout.js";
export { type CbtInfo, CbtMap, type CbtOptions } from "./cbt-map.js";
export {
  BlockState,
  BufferOwner,
  CopyFault,
  CopyKind,
  CopyMode,
  OverflowPolicy,
  RequestFlag,
  RequestOp,
  RunKind,
} from "./constants.js";
export {
  type CopyPlaces,
  CopyRecords,
  copyPlacesBytes,
  damageOfRecords,
  NO_PLACES,
} from "./copy-records.js";
export type { CopyTable } from "./copy-table.js";
export type { EngineOptions } from "./core.js";
export { DiffArea, type DiffAreaOptions } from "./diff-area.js";
export { AreaState, DiffAreaMap, NO_SLOT } from "./diff-area-map.js";
export { EngineError, type EngineErrorCode } from "./errors.js";
export {
  BLOCK_SHIFT_DEFAULT,
  BLOCK_SHIFT_MAX,
  Geometry,
  type TrackerGeometry,
} from "./geometry.js";
export type { EngineIo } from "./io.js";
export { IoStage, IoState } from "./io-state.js";
export { KeptDiscards } from "./kept-discards.js";
export type { KeptSlice } from "./kept-slice.js";
export { LossCount } from "./loss-count.js";
export { type ByteRange, LostRangeScan } from "./lost-range-scan.js";
export type { RequestTable } from "./request-table.js";
export type { RunTable } from "./run-table.js";
export { type EngineCounters, EngineStats } from "./stats.js";
export { TrackerEngine } from "./tracker-engine.js";
