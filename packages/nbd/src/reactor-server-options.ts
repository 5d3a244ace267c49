/** Options and counts of a server in a reactor. */
import type { PinnedMemory, Reactor } from "@blksnap/uring";
import type { MetaContext } from "./exports.js";
import type { ServerSettings } from "./settings.js";

export interface ReactorServerOptions {
  readonly reactor: Reactor;
  /**
   * A listening stream socket from listenLocal(). The server closes it at its end. Without it connections arrive by
   * adopt().
   */
  readonly listenFd?: number;
  readonly settings?: ServerSettings;
  /** Of serverMemory(settings), owned by the server from then on. Default: it allocates its own. */
  readonly memory?: PinnedMemory;
  /**
   * Where the server records its open descriptors, for code that outlives its thread: listenFd, then one per possible
   * connection, or -1.
   */
  readonly descriptors?: Int32Array;
  /** Called with exceptions of targets, and with failures of accept. */
  readonly onError: (error: unknown) => void;
}

/** A connection whose handshake was done on another thread. */
export interface Adoption {
  readonly exportName: string;
  readonly structured: boolean;
  /** Extended headers were agreed on, which implies structured replies. Default false. */
  readonly extended?: boolean;
  /** Their ids are their indices. */
  readonly contexts: readonly MetaContext[];
  /** The client may not write, whatever the export allows. Default false. */
  readonly readOnly?: boolean;
  /** Bytes received after the handshake, 64 KiB at most. */
  readonly received: Uint8Array;
}

/** Counts so far. */
export interface ServerCounts {
  connections: number;
  /** Closed on arrival: there were connectionsMax. */
  refused: number;
  /** Closed because their handshake exceeded its time limit. */
  stalled: number;
}
