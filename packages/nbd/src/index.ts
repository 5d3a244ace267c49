export { NbdClient, type NbdClientOptions, type WriteOptions } from "./client.js";
export type { NegotiatedExport } from "./client-handshake.js";
export type { Extent } from "./client-replies.js";
export { NbdError, type NbdErrorCode } from "./errors.js";
export {
  allData,
  type ContextName,
  type ExportDescription,
  type ExportDirectory,
  FixedContext,
  type MetaContext,
  transmissionFlags,
} from "./exports.js";
export type { Agreement } from "./handshake.js";
export { AllocationFlag, BASE_ALLOCATION, DIRTY, Limit, TransmissionFlag } from "./protocol.js";
export { ReactorServer } from "./reactor-server.js";
export type { Adoption, ReactorServerOptions, ServerCounts } from "./reactor-server-options.js";
export { Reception, type ReceptionOptions } from "./reception.js";
export type { ExportOptions } from "./served-export.js";
export {
  type ExportContext,
  type ExtentRun,
  type NbdExport,
  NbdServer,
  type NbdServerOptions,
} from "./server.js";
export { type ServerSettings, serverMemory } from "./settings.js";
export { isLoopback, TcpListener, type TcpListenerOptions } from "./tcp-listener.js";
export {
  type ExportAddress,
  type NbdServerAddress,
  nbdUri,
  parseNbdUri,
  type TcpServer,
  type UnixServer,
} from "./uri.js";
