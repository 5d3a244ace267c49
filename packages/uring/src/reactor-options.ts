/** What a reactor is made with, and what it calls. */
import type { MessagePort } from "node:worker_threads";
import type { Ring } from "./ring.js";

/** Handles completions. One object serves many operations; `data` distinguishes them. */
export interface CompletionHandler {
  /**
   * @param data the low half of the operation's user data
   * @param result bytes or 0, or a negative errno
   * @param flags the CQE's flags
   */
  onCompletion(data: number, result: number, flags: number): void;
}

export interface ReactorOptions {
  /** Submission entries of the ring; default 256. */
  readonly entries?: number;
  /** Registered files that the ring has room for; default 16384, or as many as RLIMIT_NOFILE allows. */
  readonly filesMax?: number;
  /** Registered buffers that the ring has room for; default 16384, which is the kernel's limit. */
  readonly buffersMax?: number;
  /**
   * Eventfd (a blocking one) that other threads write to: 1 to wake the loop, END_REACTOR to end it.
   */
  readonly wakeFd: number;
  /** Where messages of other threads arrive; drained after each wake-up. */
  readonly port: MessagePort;
  readonly onMessage: (message: unknown) => void;
  /** Called with an exception that a handler throws; the loop continues. */
  readonly onError: (error: unknown) => void;
  /** After expectRequest() it does not sleep at once; only where canLookOut(). Default false. */
  readonly isLively?: boolean;
  /** Its first word counts the turns of the loop, so that another thread can see its progress. */
  readonly heartbeat?: Int32Array;
  /** As RingOptions has it. */
  readonly beforeEnter?: (ring: Ring) => void;
}
