/**
 * Answers the reactors' requests for slots of one diff storage.
 *
 * ```
 *   "slots" ──▶ wait for growth ──┬── extent ──▶ grant
 *                                 └── full ────▶ others give back what they have not used ──▶ grant
 *                                       └── full ──▶ denial, then noted: whatever frees or adds
 *                                                    slots later (growth, discards of an image)
 *                                                    is granted
 * ```
 *
 * A denial says whether there is no room, or a store that has some does not answer: users are told that of what is
 * lost. Where that changes it is said anew. That is not an answer: it may cross a question of the same area.
 */

import type { DiffStorage, Extent } from "@blksnap/diff-storage";
import { ENOSPC, ETIMEDOUT } from "@blksnap/errors";
import type { AreaId } from "./area-id.js";
import { faultPoint } from "./fault-points.js";
import type { GrantMessage } from "./messages.js";

type Storage = Pick<
  DiffStorage,
  "allocateExtent" | "allocateExtentWhenReady" | "free" | "isWithholding" | "onChange"
>;

/** The source of a request: a tracker's diff area, and the reactor that serves it. */
export interface SlotUser {
  readonly tracker: number;
  readonly area: AreaId;
  readonly reactor: number;
}

export interface SlotServerOptions {
  readonly storage: Storage;
  readonly send: (reactor: number, message: GrantMessage) => void;
  /** False when the user has no diff area any more. */
  readonly isActive: (user: SlotUser) => boolean;
  /** Has the other users give back slots that they have not used, and ends when that is done. */
  readonly gather: (user: SlotUser) => Promise<void>;
  /** Told of each extent before it is sent. */
  readonly onGrant?: (extent: Extent) => void;
}

/** What was denied, and why. */
interface Refused {
  readonly user: SlotUser;
  readonly wanted: number;
  errno: number;
}

export class SlotServer {
  readonly #options: SlotServerOptions;
  /** By area, in the order in which that happened. */
  readonly #refused = new Map<AreaId, Refused>();
  readonly #unsubscribe: () => void;

  constructor(options: SlotServerOptions) {
    this.#options = options;
    this.#unsubscribe = options.storage.onChange(() => this.#serveRefused());
  }

  /** Ends with an answer sent, after the time limits of two growths and of a gathering at the latest. */
  async serve(user: SlotUser, wanted: number): Promise<void> {
    const { storage } = this.#options;
    // It was given some by others since. What it asked for before is not denied anew while this is looked for.
    this.#refused.delete(user.area);
    let extent = await storage.allocateExtentWhenReady(wanted);
    if (extent === "full" && this.#options.isActive(user)) {
      await this.#options.gather(user);
      extent = await storage.allocateExtentWhenReady(wanted);
    }
    if (extent !== "full") {
      if (this.#options.isActive(user)) this.#grant(user, extent);
      else storage.free(extent.firstSlot, extent.count);
      return;
    }
    const errno = this.#denial;
    this.#send(user, 0, 0, errno);
    this.#refused.set(user.area, { user, wanted, errno });
    // A change between the answer and now has found no waiting area.
    this.#serveRefused();
  }

  close(): void {
    this.#unsubscribe();
    this.#refused.clear();
  }

  #serveRefused(): void {
    for (const [area, { user, wanted }] of this.#refused) {
      if (this.#options.isActive(user)) {
        const extent = this.#options.storage.allocateExtent(wanted);
        if (extent === "wait" || extent === "full") {
          this.#denyAnew();
          return;
        }
        this.#grant(user, extent);
      }
      this.#refused.delete(area);
    }
  }

  get #denial(): number {
    return this.#options.storage.isWithholding ? ETIMEDOUT : ENOSPC;
  }

  /** Those that are still refused, where it is for another reason now. */
  #denyAnew(): void {
    const errno = this.#denial;
    for (const refused of this.#refused.values()) {
      if (refused.errno === errno || !this.#options.isActive(refused.user)) continue;
      refused.errno = errno;
      this.#send(refused.user, 0, 0, errno, true);
    }
  }

  #grant(user: SlotUser, extent: Extent): void {
    this.#options.onGrant?.(extent);
    this.#send(user, extent.firstSlot, extent.count);
  }

  #send(
    { tracker, area, reactor }: SlotUser,
    firstSlot: number,
    count: number,
    errno = ENOSPC,
    isAnew = false,
  ): void {
    faultPoint("slots.allocated");
    const message = { type: "grant", tracker, area, firstSlot, count, errno } as const;
    this.#options.send(reactor, isAnew ? { ...message, isAnew } : message);
  }
}
