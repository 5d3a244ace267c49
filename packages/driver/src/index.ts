export {
  ControlError,
  type ControlServer,
  type ControlServerOptions,
  type DriverControl,
  type SnapshotCreateOptions,
  startControlServer,
} from "./control/index.js";
export { Driver, type DriverOptions } from "./driver.js";
export { DAEMON_VERSION, INTERFACE_VERSION } from "./version.js";
