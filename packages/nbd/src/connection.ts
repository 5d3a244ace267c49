import type { MetaContext } from "./exports.js";
import type { Handshake } from "./handshake.js";
import type { ServedExport } from "./served-export.js";

/** What a receive that is in flight is for. */
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
  /** What the handshake still has to say, and how much of it was said. */
  handshakeOut: Buffer | undefined;
  handshakeSent = 0;
  export: ServedExport | undefined;
  structured = false;
  /** With extended headers; then replies are structured, too. */
  extended = false;
  /** Also where others may write to the export. */
  readOnly = false;
  contexts: readonly MetaContext[] = [];

  receiving: number = 0;
  /** Bytes received and not yet taken: from start to end of its part of the arena. */
  start = 0;
  end = 0;
  /** The request that is being given to slots; -1: none. */
  request = -1;
  /** The slot that the payload of a write is received into; -1: none. */
  payloadSlot = -1;
  payloadHave = 0;
  payloadWanted = 0;
  /** Payload of a write that is refused. */
  discardBytes = 0;
  /** The request that is then answered; -1: none. */
  discardRequest = -1;

  /** Requests whose reply is not yet sent. */
  requests = 0;
  slots = 0;
  slotsInTarget = 0;
  isWaiting = false;

  /** First and last of the items that wait to be sent; -1: none. */
  queueHead = -1;
  queueTail = -1;
  /** First, last and number of those in the send that is in flight. */
  sendHead = -1;
  sendTail = -1;
  sendItems = 0;
  isSending = false;
  sendBytes = 0;
  /** Entries of the vector, and the first that is not yet sent whole. */
  vectorEntries = 0;
  vectorFirst = 0;
  /** As long as the ring has not been entered since, the send can still be added to. */
  sendStamp = -1;

  isLeaving = false;
  isClosing = false;
  isShutDown = false;
  /** Sweeps that it has seen. */
  sweeps = 0;

  constructor(index: number, fd: number, handshake: Handshake<ServedExport> | undefined) {
    this.index = index;
    this.fd = fd;
    this.handshake = handshake;
  }

  /** Nothing of it is in the kernel or in a target. */
  get isQuiet(): boolean {
    return this.receiving === 0 && !this.isSending && this.slotsInTarget === 0;
  }
}
