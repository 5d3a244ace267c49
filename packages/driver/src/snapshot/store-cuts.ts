/**
 * Parts of a snapshot's stores that are lost: another program has truncated the store, or its medium has failed.
 *
 * ```
 *   noted ─▶ on record ─▶ each reactor marks its map ─▶ off the record
 *                  └─ killed ─▶ the next daemon tells its reactors, before their areas continue
 * ```
 *
 * The kernel reports a loss once, and a truncated store may have its length again later: a daemon that does not learn
 * of the loss from the record never does.
 */

import type { AreaId, ReactorPool } from "@blksnap/data-plane";
import type { DiffStorageOptions } from "@blksnap/diff-storage";
import type { Logger } from "pino";
import type { SnapshotRecord, StoreCut } from "../records/records.js";
import type { Tracker } from "../tracker/tracker.js";
import type { Member } from "./member.js";

export interface StoreCutsOptions {
  readonly reactors: ReactorPool;
  readonly logger: Logger;
  readonly snapshot: string;
  readonly members: ReadonlyMap<number, Pick<Member, "tracker" | "area">>;
  /** The record that an earlier daemon has left, while its members are added again. */
  readonly left: Pick<SnapshotRecord, "storeCuts"> | undefined;
  /** Writes `record` into the snapshot's record. */
  readonly save: () => void;
}

export class StoreCuts {
  readonly #options: StoreCutsOptions;
  /** By store, where the lost part begins: a medium that fails for hours reports that each second. */
  readonly #cuts: Map<number, StoreCut>;
  /** Stores with losses that some map may not have yet. */
  readonly #unmarked: Set<number>;
  /**
   * What keeps them on record: members that are added again, and reports that have not been answered. One that fails
   * does so to the end: the next daemon reports to its own reactors.
   */
  #holds: number;

  constructor(options: StoreCutsOptions) {
    this.#options = options;
    this.#holds = options.left === undefined ? 0 : 1;
    this.#cuts = new Map(options.left?.storeCuts?.map((cut) => [cut.store, cut]));
    this.#unmarked = new Set(this.#cuts.keys());
  }

  /** This class's part of the snapshot's record. */
  get record(): Pick<SnapshotRecord, "storeCuts"> {
    const storeCuts = [...this.#cuts.values()].filter(({ store }) => this.#unmarked.has(store));
    return storeCuts.length === 0 ? {} : { storeCuts };
  }

  readonly note: NonNullable<DiffStorageOptions["onCut"]> = (store, firstSlotIndex, why) => {
    const { logger, snapshot, save } = this.#options;
    const what = why === "cut" ? "was cut off by another program" : "could not be written back";
    const text = `store ${store} ${what}: the old data in it is lost`;
    logger.error({ snapshot, store, firstSlotIndex }, text);
    const before = this.#cuts.get(store)?.firstSlotIndex ?? firstSlotIndex;
    this.#cuts.set(store, { store, firstSlotIndex: Math.min(firstSlotIndex, before) });
    this.#unmarked.add(store);
    save();
    void this.#reportToMembers({ store, firstSlotIndex });
  };

  /** Call it before a device's area continues. */
  async reportAll(tracker: Tracker, area: AreaId): Promise<void> {
    for (const cut of this.#cuts.values()) await this.#report(tracker, area, cut);
  }

  /** All areas that continue know of the losses. The caller writes the snapshot's record after this. */
  membersReattached(): void {
    this.#release();
  }

  /** @returns whether nothing has to be on record any more */
  #release(): boolean {
    if (--this.#holds > 0) return false;
    this.#unmarked.clear();
    return true;
  }

  async #reportToMembers(cut: StoreCut): Promise<void> {
    const { logger, snapshot, members, save } = this.#options;
    this.#holds++;
    let isInDoubt = false;
    const reports = [...members.values()].map(async ({ tracker, area }) => {
      if (area === undefined) return;
      try {
        await this.#report(tracker, area.id, cut);
      } catch (error) {
        isInDoubt = true;
        logger.error({ snapshot, device: tracker.device, err: error }, "its image may be wrong");
      }
    });
    await Promise.all(reports);
    if (!isInDoubt && this.#release()) save();
  }

  /** Resolves when the map has the loss. */
  async #report({ id: tracker, reactor }: Tracker, area: AreaId, cut: StoreCut): Promise<void> {
    const request = { type: "loseSlots", tracker, area, ...cut } as const;
    await this.#options.reactors.request(reactor, request);
  }
}
