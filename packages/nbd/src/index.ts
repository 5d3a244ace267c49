export { NbdClient, type NbdClientOptions, type WriteOptions } from "./client.js";
export type { NegotiatedExport } from "./client-handshake.js";
export type { Extent } from "./client-replies.js";
export { NbdError, type NbdErrorCode } from "./errors.js";
export { type ExportDescription, FixedContext, type MetaContext } from "./exports.js";
export { AllocationFlag, BASE_ALLOCATION, DIRTY, Limit } from "./protocol.js";
export { ReactorServer, type ReactorServerOptions, type ServerCounts } from "./reactor-server.js";
export type { ExportOptions } from "./served-export.js";
export {
  type ExportContext,
  type ExtentRun,
  type NbdExport,
  NbdServer,
  type NbdServerOptions,
} from "./server.js";
export type { ServerSettings } from "./settings.js";
export { type ExportAddress, nbdUri, parseNbdUri } from "./uri.js";
