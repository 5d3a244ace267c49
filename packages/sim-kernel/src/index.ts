export type { BlockDevice, BlockLimits, DiskOptions, SimDisk } from "./block-device.js";
export { Errno, Killed, SystemError } from "./errno.js";
export { type MachineOptions, SimMachine } from "./machine.js";
export type { Io, IoFault, IoKind, Medium } from "./medium.js";
export { RegularFile } from "./nodes.js";
export { Random } from "./random.js";
export { reactorStarter, type ServerSetup, type TurningServer } from "./reactors.js";
export type { CommandFault } from "./ublk-driver.js";
export type { SimUser } from "./user.js";
