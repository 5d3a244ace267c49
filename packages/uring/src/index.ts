export {
  FallocateMode,
  FsyncFlag,
  Opcode,
  RwFlag,
  SetupFlag,
  SqeFlag,
} from "./abi.js";
export {
  claimApart,
  commandApart,
  extentsApart,
  type FileExtent,
  type FileExtents,
  type FileStatus,
  fsyncApart,
  openApart,
  statApart,
  unlinkApart,
  writeApart,
} from "./apart.js";
export { bounded } from "./bounded.js";
export { assert, errnoName, UringError, type UringErrorCode } from "./errors.js";
export { high32, low32, MappedMemory, PAGE_BYTES } from "./memory.js";
export * from "./operations.js";
export { PromiseRing } from "./promise-ring.js";
export { type CompletionHandler, END_REACTOR, Reactor, type ReactorOptions } from "./reactor.js";
export { ReactorThread, type ReactorWorkerData } from "./reactor-thread.js";
export { CQE_WORDS, Ring, type RingOptions } from "./ring.js";
export * from "./system.js";
