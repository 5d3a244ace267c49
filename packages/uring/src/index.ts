export {
  FallocateMode,
  FsyncFlag,
  MessageFlag,
  Opcode,
  RwFlag,
  SetupFlag,
  SqeFlag,
} from "./abi.js";
export {
  claimInHelper,
  commandInHelper,
  extentsInHelper,
  type FileExtent,
  type FileExtents,
  type FileStatus,
  fsyncInHelper,
  holesInHelper,
  type LoopStatus,
  loopsInHelper,
  openInHelper,
  type PartRead,
  readInHelper,
  statInHelper,
  syncInHelper,
  unlinkInHelper,
  writeInHelper,
} from "./apart.js";
export { apartProgram, LockedHelper } from "./apart-process.js";
export { bounded } from "./bounded.js";
export { assert, UringError, type UringErrorCode } from "./errors.js";
export { becomeIoFlusher, isIoFlusher } from "./io-flusher.js";
export { type ListeningSocket, listeningSocket } from "./listening-socket.js";
export { canLookOut } from "./lookout.js";
export { high32, low32, MappedMemory, PAGE_BYTES } from "./memory.js";
export {
  type MountsOfAll,
  mountsInHelper,
  type ReachedFileSystem,
  ReachedFileSystems,
} from "./mounts-apart.js";
export * from "./operations.js";
export { PinnedMemory, type PinnedUnits } from "./pinned-memory.js";
export { PromiseRing } from "./promise-ring.js";
export { DRIVER_PLACES_MAX, END_REACTOR, Reactor, type Timer } from "./reactor.js";
export type { CompletionHandler, ReactorOptions } from "./reactor-options.js";
export { ReactorThread, type ReactorWorkerData } from "./reactor-thread.js";
export { type RetryOptions, retry } from "./retry.js";
export { CQE_WORDS, LINK_TORN, Ring, type RingOptions } from "./ring.js";
export { Serial } from "./serial.js";
export { isRingShort } from "./shortage.js";
export * from "./system.js";
export { unblockedWriter, type WriteNow } from "./unblocked-writer.js";
