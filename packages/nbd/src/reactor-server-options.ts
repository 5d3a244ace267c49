/** What a server in a reactor is made with, and what it tells of itself. */
import type { MappedMemory, Reactor } from "@blksnap/uring";
import type { MetaContext } from "./exports.js";
import type { ServerSettings } from "./settings.js";

export interface ReactorServerOptions {
  readonly reactor: Reactor;
  /**
   * A listening stream socket, as listenLocal() makes one. It is closed when the server has ended. Without it
   * connections come by adopt().
   */
  readonly listenFd?: number;
  readonly settings?: ServerSettings;
  /** At least serverMemoryBytes(settings); then the server's. By default it makes its own. */
  readonly memory?: MappedMemory;
  /**
   * Where the server notes its open descriptors, for what outlives its thread: listenFd, then one for each
   * connection that may be, or -1.
   */
  readonly descriptors?: Int32Array;
  /** Told of exceptions of targets, and of accepts that fail. */
  readonly onError: (error: unknown) => void;
}

/** A connection whose handshake another thread has held. */
export interface Adoption {
  readonly exportName: string;
  readonly structured: boolean;
  /** Extended headers were agreed on, which implies structured replies. Default false. */
  readonly extended?: boolean;
  /** Their ids are their indices. */
  readonly contexts: readonly MetaContext[];
  /** The client cannot write, whatever the export allows. Default false. */
  readonly readOnly?: boolean;
  /** What has come behind the handshake, 64 KiB at most. */
  readonly received: Uint8Array;
}

/** What has happened so far. */
export interface ServerCounts {
  connections: number;
  /** Closed as they came: there were connectionsMax. */
  refused: number;
  /** Closed because their time for the handshake was over. */
  stalled: number;
}
