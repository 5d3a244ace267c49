/** Running commands in a VM with ublk, for test runners. */
export { findProgram, hostHasUblk, isStaticProgram, searchPath, VmError } from "./lib/host.mjs";
export { ensureKernel, NEWEST } from "./lib/kernel.mjs";
export { runInVm } from "./lib/run.mjs";
