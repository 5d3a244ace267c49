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
 * A denial says whether there is no room, or a store that has room does not answer: users see that as the reason of
 * their losses. If the reason changes, the denial is repeated. That is not an answer: it may cross a request of the
 * same area.
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
  /** Makes the other users give back unused slots; resolves when they have. */
  readonly gather: (user: SlotUser) => Promise<void>;
  /** Called with each extent before it is sent. */
  readonly onGrant?: (extent: Extent) => void;
}

/** A denied request, and the reason. */
interface Refused {
  readonly user: SlotUser;
  readonly wanted: number;
  errno: number;
}

export class SlotServer {
  readonly #options: SlotServerOptions;
  /** By area, in the order of the denials. */
  readonly #refused = new Map<AreaId, Refused>();
  readonly #unsubscribe: () => void;

  constructor(options: SlotServerOptions) {
    this.#options = options;
    this.#unsubscribe = options.storage.onChange(() => this.#serveRefused());
  }

  /** Resolves when an answer is sent: at the latest after the time limits of two growths and of a gathering. */
  async serve(user: SlotUser, wanted: number): Promise<void> {
    const { storage } = this.#options;
    // An earlier request is answered by now, so its denial is not repeated during this one.
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
    // A change since the last attempt has found no waiting area.
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
          this.#updateDenials();
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

  /** Repeats denials whose reason has changed. */
  #updateDenials(): void {
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
    isUpdate = false,
  ): void {
    faultPoint("slots.allocated");
    const message = { type: "grant", tracker, area, firstSlot, count, errno } as const;
    this.#options.send(reactor, isUpdate ? { ...message, isUpdate } : message);
  }
}
