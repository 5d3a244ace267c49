/** The control API of blksnapd: schemas, the types derived from them, and the error catalogue. */
export * from "./control-error.js";
export * as daemonEventSchemas from "./daemon-event-schemas.js";
export * as daemonSchemas from "./daemon-schemas.js";
export { DAEMON_SETTINGS } from "./daemon-settings.js";
export * from "./driver-control.js";
export { driverMetrics } from "./driver-metrics.js";
export * from "./errors.js";
export * from "./event-log.js";
export * as eventSchemas from "./event-schemas.js";
export * from "./metric-family.js";
export * as nbdSchemas from "./nbd-schemas.js";
export { nearestName } from "./nearest-name.js";
export * from "./openapi.js";
export * from "./operations.js";
export * from "./scalars.js";
export * from "./setting-table.js";
export * as snapshotSchemas from "./snapshot-schemas.js";
export {
  DEFAULT_SOCKET_PATH,
  SOCKET_ENVIRONMENT_VARIABLE,
  socketPath,
  userSocketPath,
} from "./socket-path.js";
export * as statusSchemas from "./status-schemas.js";
export * from "./store-kinds.js";
export { parseTcpAddress, type TcpAddress, tcpAddressText } from "./tcp-address.js";
export * as trackerSchemas from "./tracker-schemas.js";
export * from "./types.js";
