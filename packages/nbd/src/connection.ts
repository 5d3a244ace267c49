import type { MetaContext } from "./exports.js";
import type { Handshake } from "./handshake.js";
import type { ServedExport } from "./served-export.js";

/** The purpose of a receive in flight. */
export const Receiving = { NOTHING: 0, BYTES: 1, PAYLOAD: 2 } as const;

/**
 * The state of one connection.
 *
 * ```
 *   handshake ──▶ transmission ──▶ leaving ──▶ closing ──▶ closed
 *       │               │    DISC, its end, the shutdown    nothing in flight any more
 *       │               │    server's end      ▲
 *       └───────────────┴──────────────────────┘ a broken rule, a stall
 * ```
 */
export class Connection {
  readonly index: number;
  readonly fd: number;
  handshake: Handshake<ServedExport> | undefined;
  /** Bytes of the handshake that are still to send, and how much of them is sent. */
  handshakeOut: Buffer | undefined;
  handshakeSent = 0;
  export: ServedExport | undefined;
  structured = false;
  /** Extended headers, which imply structured replies. */
  extended = false;
  /** Even if others may write to the export. */
  readOnly = false;
  contexts: readonly MetaContext[] = [];

  receiving: number = 0;
  /** Bytes received and not yet consumed: from start to end of its part of the arena. */
  start = 0;
  end = 0;
  /** The request that is being split into slots; -1: none. */
  request = -1;
  /** The slot that receives the payload of a write; -1: none. */
  payloadSlot = -1;
  payloadHave = 0;
  payloadWanted = 0;
  /** Remaining payload of a refused write. */
  discardBytes = 0;
  /** The request to reply to after that; -1: none. */
  discardRequest = -1;

  /** Requests whose reply is not yet sent. */
  requests = 0;
  slots = 0;
  slotsInTarget = 0;
  isWaiting = false;

  /** First and last of the queued items; -1: none. */
  queueHead = -1;
  queueTail = -1;
  /** First, last and number of the items in the send in flight. */
  sendHead = -1;
  sendTail = -1;
  sendItems = 0;
  isSending = false;
  sendBytes = 0;
  /** Entries of the vector, and the first that is not sent completely. */
  vectorEntries = 0;
  vectorFirst = 0;
  /** Until the ring is entered, the send can still be extended. */
  sendStamp = -1;

  isLeaving = false;
  isClosing = false;
  isShutDown = false;
  /** Number of sweeps that it has seen. */
  sweeps = 0;

  constructor(index: number, fd: number, handshake: Handshake<ServedExport> | undefined) {
    this.index = index;
    this.fd = fd;
    this.handshake = handshake;
  }

  /** Whether neither the kernel nor a target uses anything of it. */
  get isQuiet(): boolean {
    return this.receiving === 0 && !this.isSending && this.slotsInTarget === 0;
  }
}
