/** Typed client of the blksnapd control API. */
export type { ChangedExtentsOptions } from "./changed-extents.js";
export {
  BlksnapClient,
  type BlksnapClientOptions,
  type CbtMap,
  type DaemonUpgrade,
  type SnapshotCreateParameters,
} from "./client.js";
export { BlksnapClientError } from "./client-error.js";
export type { DaemonEventsOptions } from "./daemon-events.js";
export type { CallOptions } from "./transport.js";
