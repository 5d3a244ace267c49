/** Limits of a server. */
import { PAGE_BYTES, type PinnedUnits } from "@blksnap/uring";
import { type ArenaSizes, arenaUnits } from "./arena.js";
import { assert } from "./errors.js";

export interface ServerSettings {
  /** Concurrent connections, 1 to 1024; further ones are closed on arrival. Default 64. */
  readonly connectionsMax?: number;
  /** Pieces of requests in flight, of all connections: at least connectionsMax, at most 4096. Default 128. */
  readonly queueDepth?: number;
  /** Bytes of a piece; larger requests are split. A multiple of 4096, at most 1 MiB. Default 256 KiB. */
  readonly maxIoBytes?: number;
  /** Time limit of a handshake. Default 10 s. */
  readonly handshakeTimeoutMs?: number;
  /**
   * At the end of the server or an export: time for requests in flight, and for clients to read their replies, until
   * they are cut off. Default 2 s.
   */
  readonly endTimeoutMs?: number;
}

export type FullServerSettings = Required<ServerSettings>;

const CONNECTIONS_MAX = 1024;
const DEPTH_MAX = 4096;
const MAX_IO_BYTES_MAX = 1 << 20;

function inRange(name: string, value: number, min: number, max: number): void {
  assert(Number.isInteger(value) && value >= min && value <= max, `${name} ${value}`);
}

export function fullSettings(given: ServerSettings): FullServerSettings {
  const settings = {
    connectionsMax: given.connectionsMax ?? 64,
    queueDepth: given.queueDepth ?? 128,
    maxIoBytes: given.maxIoBytes ?? 256 << 10,
    handshakeTimeoutMs: given.handshakeTimeoutMs ?? 10_000,
    endTimeoutMs: given.endTimeoutMs ?? 2_000,
  };
  inRange("connectionsMax", settings.connectionsMax, 1, CONNECTIONS_MAX);
  inRange("queueDepth", settings.queueDepth, settings.connectionsMax, DEPTH_MAX);
  inRange("maxIoBytes", settings.maxIoBytes, PAGE_BYTES, MAX_IO_BYTES_MAX);
  assert(settings.maxIoBytes % PAGE_BYTES === 0, `maxIoBytes ${settings.maxIoBytes}`);
  inRange("handshakeTimeoutMs", settings.handshakeTimeoutMs, 1, 2 ** 31);
  inRange("endTimeoutMs", settings.endTimeoutMs, 1, 2 ** 31);
  return settings;
}

/** Requests that a connection may have before it reads their replies. */
export const REQUESTS_OF_CONNECTION = 128;

export function arenaSizes(settings: FullServerSettings): ArenaSizes {
  return {
    slots: settings.queueDepth,
    slotBytes: settings.maxIoBytes,
    requests: settings.connectionsMax * REQUESTS_OF_CONNECTION,
    connections: settings.connectionsMax,
  };
}

/** Memory of a server with these settings. */
export function serverMemory(settings: ServerSettings): PinnedUnits {
  return arenaUnits(arenaSizes(fullSettings(settings)));
}
