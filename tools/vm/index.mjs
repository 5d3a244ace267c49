/** Runs commands in a VM with ublk, for test runners, and exports shared helpers for fetching its parts. */
export { createFolderAtOnce } from "./lib/cache.mjs";
export { findProgram, hostHasUblk, isStaticProgram, searchPath, VmError } from "./lib/host.mjs";
export { ensureKernel, NEWEST } from "./lib/kernel.mjs";
export { fetchForeignPackages } from "./lib/packages.mjs";
export { ensureNewerQemuUtils } from "./lib/qemu-utils.mjs";
export { runInVm } from "./lib/run.mjs";
