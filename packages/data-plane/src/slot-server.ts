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
 */

import type { DiffStorage, Extent } from "@blksnap/diff-storage";
import { ENOSPC } from "@blksnap/errors";
import type { AreaId } from "./area-id.js";
import { faultPoint } from "./fault-points.js";
import type { GrantMessage } from "./messages.js";

type Storage = Pick<
  DiffStorage,
  "allocateExtent" | "allocateExtentWhenReady" | "free" | "onChange"
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

export class SlotServer {
  readonly #options: SlotServerOptions;
  /** Areas that were refused, with what they wanted, in the order in which that happened. */
  readonly #refused = new Map<AreaId, { user: SlotUser; wanted: number }>();
  readonly #unsubscribe: () => void;

  constructor(options: SlotServerOptions) {
    this.#options = options;
    this.#unsubscribe = options.storage.onChange(() => this.#serveRefused());
  }

  /** Ends with an answer sent, after the time limits of two growths and of a gathering at the latest. */
  async serve(user: SlotUser, wanted: number): Promise<void> {
    const { storage } = this.#options;
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
    this.#send(user, 0, 0);
    this.#refused.set(user.area, { user, wanted });
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
        if (extent === "wait" || extent === "full") return;
        this.#grant(user, extent);
      }
      this.#refused.delete(area);
    }
  }

  #grant(user: SlotUser, extent: Extent): void {
    this.#options.onGrant?.(extent);
    this.#send(user, extent.firstSlot, extent.count);
  }

  #send({ tracker, area, reactor }: SlotUser, firstSlot: number, count: number): void {
    faultPoint("slots.allocated");
    const message = { type: "grant", tracker, area, firstSlot, count, errno: ENOSPC } as const;
    this.#options.send(reactor, message);
  }
}
