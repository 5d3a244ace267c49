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
  /** Losses that some map may not have yet. */
  #unmarked: Map<number, StoreCut>;
  #isReattaching: boolean;
  #pendingReports = 0;
  /** A reactor has not answered: the next daemon reports to its own reactors. */
  #isInDoubt = false;

  constructor(options: StoreCutsOptions) {
    this.#options = options;
    this.#isReattaching = options.left !== undefined;
    this.#cuts = new Map(options.left?.storeCuts?.map((cut) => [cut.store, cut]));
    this.#unmarked = new Map(this.#cuts);
  }

  /** This class's part of the snapshot's record. */
  get record(): Pick<SnapshotRecord, "storeCuts"> {
    return this.#unmarked.size === 0 ? {} : { storeCuts: [...this.#unmarked.values()] };
  }

  readonly note: NonNullable<DiffStorageOptions["onCut"]> = (store, firstSlotIndex, why) => {
    const { logger, snapshot, save } = this.#options;
    const what = why === "cut" ? "was cut off by another program" : "could not be written back";
    const text = `store ${store} ${what}: the old data in it is lost`;
    logger.error({ snapshot, store, firstSlotIndex }, text);
    const cut = { store, firstSlotIndex };
    add(this.#cuts, cut);
    add(this.#unmarked, cut);
    save();
    void this.#reportToMembers(cut);
  };

  /** Call it before a device's area continues. */
  async reportAll(tracker: Tracker, area: AreaId): Promise<void> {
    for (const cut of this.#cuts.values()) await this.#report(tracker, area, cut);
  }

  /** All areas that continue know of the losses. The caller writes the snapshot's record after this. */
  membersReattached(): void {
    this.#isReattaching = false;
    if (this.#pendingReports === 0 && !this.#isInDoubt) this.#unmarked.clear();
  }

  async #reportToMembers(cut: StoreCut): Promise<void> {
    const { logger, snapshot, members, save } = this.#options;
    this.#pendingReports++;
    const reports = [...members.values()].map(async ({ tracker, area }) => {
      if (area === undefined) return;
      try {
        await this.#report(tracker, area.id, cut);
      } catch (error) {
        this.#isInDoubt = true;
        logger.error({ snapshot, device: tracker.device, err: error }, "its image may be wrong");
      }
    });
    await Promise.all(reports);
    this.#pendingReports--;
    if (this.#pendingReports > 0 || this.#isInDoubt || this.#isReattaching) return;
    this.#unmarked.clear();
    save();
  }

  /** Resolves when the map has the loss. */
  async #report({ id: tracker, reactor }: Tracker, area: AreaId, cut: StoreCut): Promise<void> {
    const request = { type: "loseSlots", tracker, area, ...cut } as const;
    await this.#options.reactors.request(reactor, request);
  }
}

function add(cuts: Map<number, StoreCut>, { store, firstSlotIndex }: StoreCut): void {
  const before = cuts.get(store)?.firstSlotIndex ?? firstSlotIndex;
  cuts.set(store, { store, firstSlotIndex: Math.min(firstSlotIndex, before) });
}
