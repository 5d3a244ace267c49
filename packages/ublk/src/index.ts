export {
  IO_RES_ABORT,
  UblkFeature,
  UblkIoFlag,
  UblkOp,
  UblkState,
} from "./abi.js";
export {
  type BackingFile,
  closeBackingFile,
  type OpenBackingOptions,
  openBackingFile,
  openBackingFileBeside,
  presentCapacityBytes,
} from "./backing-file.js";
export { featureNames, listDeviceIds, openCharacterDevice, UblkControl } from "./control.js";
export { UblkDevice, type UblkDeviceOptions } from "./device.js";
export { DriverStandIn, type RequestSource } from "./driver-stand-in.js";
export { UblkError, type UblkErrorCode } from "./errors.js";
export { BLOCK_URING_CMD_DISCARD, FileIo, type FileIoOwner } from "./file-io.js";
export type { DeviceParams, NewDevice, UblkDeviceInfo } from "./layout.js";
export { addPartitions } from "./partitions.js";
export { Queue, type QueueOptions } from "./queue.js";
export {
  DeviceMark,
  isOurs,
  ownDevices,
  type QueueStart,
  RECOVERY_PATIENCE_MS,
  RecoverableDevice,
  type ServeOptions,
} from "./recoverable-device.js";
export { SecondTries, TRIES_MAX, TRIES_PAUSE_MS } from "./second-tries.js";
export {
  type CopyThen,
  NOT_REGISTERED,
  type RequestQueue,
  type Target,
  type TargetModule,
  type TargetSpec,
} from "./target.js";
export { FileTarget, fileTarget } from "./targets/file.js";
export { memoryTarget } from "./targets/memory.js";
export { nullTarget } from "./targets/null.js";
export { MAX_IO_BYTES, offersZeroCopy, ZERO_COPY_IO_BYTES } from "./zero-copy.js";
