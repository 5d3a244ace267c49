/** Typed client of the blksnapd control API. */
export type { ChangedExtentsOptions } from "./changed-extents.js";
export {
  BlksnapClient,
  type BlksnapClientOptions,
  type CbtMap,
  type SnapshotCreateParameters,
} from "./client.js";
export { BlksnapClientError } from "./client-error.js";
export type { DaemonUpgrade } from "./daemon-change.js";
export type { DaemonEventsOptions } from "./daemon-events.js";
export { type After, RunLimit } from "./run-limit.js";
export type { CallOptions } from "./transport.js";
