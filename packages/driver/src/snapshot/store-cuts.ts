/** What somebody else has cut off the files of a snapshot's stores: blocks in there are lost. */

import type { ReactorPool } from "@blksnap/data-plane";
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
  readonly members: ReadonlyMap<number, Pick<Member, "tracker" | "map">>;
}

export class StoreCuts {
  readonly #options: StoreCutsOptions;
  readonly #cuts: Cut[] = [];

  constructor(options: StoreCutsOptions) {
    this.#options = options;
  }

  readonly note = (store: number, firstSlotIndex: number): void => {
    const { logger, snapshot, members } = this.#options;
    const text = `store ${store} was cut off by another program: the old data in it is lost`;
    logger.error({ snapshot, store, firstSlotIndex }, text);
    const cut = { store, firstSlotIndex };
    this.#cuts.push(cut);
    for (const { tracker, map } of members.values()) {
      if (map === undefined) continue;
      this.#tell(tracker, cut).catch((error: unknown) => {
        logger.error({ snapshot, device: tracker.device, err: error }, "its image may be wrong");
      });
    }
  };

  /** Before a device's area goes on. */
  async tellAll(tracker: Tracker): Promise<void> {
    for (const cut of this.#cuts) await this.#tell(tracker, cut);
  }

  async #tell({ id, reactor }: Tracker, cut: Cut): Promise<void> {
    await this.#options.reactors.request(reactor, { type: "loseSlots", tracker: id, ...cut });
  }
}
