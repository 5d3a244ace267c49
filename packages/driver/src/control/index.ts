/** The control API of the daemon. */
export { ControlError, type ControlErrorOptions } from "./control-error.js";
export type { DaemonControl, DriverControl, SnapshotCreateOptions } from "./driver-control.js";
export { type ControlServer, type ControlServerOptions, startControlServer } from "./server.js";
