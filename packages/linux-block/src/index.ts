export { readBootCounters } from "./continuity/boot-counters.js";
export {
  type BootCounters,
  type BootMark,
  readBootId,
  readBootIdSync,
  UNKNOWN_BOOT,
} from "./continuity/boot-mark.js";
export {
  type Continuity,
  doubtOfIdentity,
  type EarlierTracking,
  judgeContinuity,
  type PersistedIdentity,
} from "./continuity/continuity.js";
export {
  compareIdentity,
  type DeviceIdentity,
  readBlockIdentity,
} from "./continuity/device-identity.js";
export {
  compareMarks,
  type DeviceMarks,
  devicesLike,
  nodeOf,
  readMarks,
} from "./continuity/device-marks.js";
export { isEndOfBoot, isGoingDown } from "./continuity/end-of-boot.js";
export { extSession } from "./continuity/file-system-proof.js";
export {
  type DeviceOfEarlierBoot,
  findAcrossBoots,
} from "./continuity/find-across-boots.js";
export {
  type FindAgainOptions,
  type FoundDevice,
  findAgain,
  type WantedDevice,
} from "./continuity/find-again.js";
export { readFacts } from "./continuity/original-facts.js";
export { readSeal, type Seal, sealNow, writtenSince } from "./continuity/seal.js";
export { untilWritesShow } from "./continuity/write-counters.js";
export {
  type DmsetupOptions,
  type ProgramOptions,
  type RunDmsetup,
  runDmsetup,
  runProgram,
} from "./device-mapper/dmsetup.js";
export { type MappedNode, mappedNodeOf, mappedNodes } from "./device-mapper/mapped-node.js";
export { type CloneNames, DeviceMapper } from "./device-mapper/splice.js";
export { type LiveNode, Splice, type SpliceState } from "./device-mapper/splice-state.js";
export {
  type DeviceNumber,
  deviceKey,
  deviceNumber,
  keyOfNumber,
  parseDevice,
} from "./device-number.js";
export { LinuxBlockError, type LinuxBlockErrorCode } from "./errors.js";
export { FreezeGroup, type FreezeOptions } from "./freeze/freeze.js";
export type { FreezeReport } from "./freeze/freeze-entry.js";
export { type FreezeSystem, usersSystem } from "./freeze/freeze-system.js";
export type {
  FileStatus,
  HelperCalls,
  LoopStatus,
  MountsOfAll,
  PartRead,
  Reached,
  ReachedFileSystem,
} from "./helper-calls.js";
export { DeviceLinks } from "./names/device-links.js";
export { UdevMarks } from "./names/udev-marks.js";
export { type ProgramEnd, runForLines } from "./program-lines.js";
export {
  type Elsewhere,
  type FileSystem,
  type FileSystemStack,
  stackAbove,
} from "./stack/block-stack.js";
export { usersOf } from "./stack/device-users.js";
export { LoopTable } from "./stack/loop-table.js";
export { fieldBytes, type Mount, mountAt, parseMountinfo } from "./stack/mountinfo.js";
export { type SystemView, USERS_VIEW } from "./stack/mounts.js";
export {
  boundedLookup,
  deviceOrFile,
  identityAt,
  identityOfStats,
  type PathLookup,
  presentName,
} from "./stack/path-target.js";
export {
  blockIdentity,
  type DeviceOrFile,
  fileIdentity,
  type KnownFile,
  type LoopBacking,
  lookUpPath,
  type PathTarget,
  type ReadDevice,
  type TopologyProbe,
} from "./stack/probe.js";
export { type Overlap, overlapOf, type Share, type Stack, type StackNode } from "./stack/stack.js";
export { superblockReader } from "./stack/superblock-reader.js";
export { type SysfsDevice, sysfsDevicesNamed } from "./stack/sysfs-device.js";
export {
  devicesIn,
  knownStackOf,
  stackOf,
  type UnderlyingDevice,
  underlyingDevices,
  underlyingDevicesOfPath,
} from "./stack/topology.js";
export { attribute, entriesOf, isStacked, queueAttribute } from "./sysfs-text.js";
export { uuidBytes, uuidText } from "./uuid.js";
export { isZoned } from "./zoned.js";
