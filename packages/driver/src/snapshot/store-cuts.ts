/** What a snapshot's stores do not have any more, as another program has cut it off, or their medium has not taken it. */

import type { AreaId, ReactorPool } from "@blksnap/data-plane";
import type { DiffStorageOptions } from "@blksnap/diff-storage";
import type { Logger } from "pino";
import type { Tracker } from "../tracker/tracker.js";
import type { Member } from "./member.js";

interface Cut {
  readonly store: number;
  readonly firstSlotIndex: number;
}

export interface StoreCutsOptions {
  readonly reactors: ReactorPool;
  readonly logger: Logger;
  readonly snapshot: string;
  readonly members: ReadonlyMap<number, Pick<Member, "tracker" | "area">>;
}

export class StoreCuts {
  readonly #options: StoreCutsOptions;
  /** Per store where it begins: a medium that fails for hours is told of each second. */
  readonly #cuts = new Map<number, Cut>();

  constructor(options: StoreCutsOptions) {
    this.#options = options;
  }

  readonly note: NonNullable<DiffStorageOptions["onCut"]> = (store, firstSlotIndex, why) => {
    const { logger, snapshot, members } = this.#options;
    const what = why === "cut" ? "was cut off by another program" : "could not be written back";
    const text = `store ${store} ${what}: the old data in it is lost`;
    logger.error({ snapshot, store, firstSlotIndex }, text);
    const cut = { store, firstSlotIndex };
    const before = this.#cuts.get(store)?.firstSlotIndex ?? firstSlotIndex;
    this.#cuts.set(store, { store, firstSlotIndex: Math.min(firstSlotIndex, before) });
    for (const { tracker, area } of members.values()) {
      if (area === undefined) continue;
      this.#tell(tracker, area.id, cut).catch((error: unknown) => {
        logger.error({ snapshot, device: tracker.device, err: error }, "its image may be wrong");
      });
    }
  };

  /** Before a device's area continues. */
  async tellAll(tracker: Tracker, area: AreaId): Promise<void> {
    for (const cut of this.#cuts.values()) await this.#tell(tracker, area, cut);
  }

  async #tell({ id: tracker, reactor }: Tracker, area: AreaId, cut: Cut): Promise<void> {
    const request = { type: "loseSlots", tracker, area, ...cut } as const;
    await this.#options.reactors.request(reactor, request);
  }
}
