/**
 * The gate before the original of a persistent tracker: no write passes that is not recorded in the tracker's journal.
 */
import { type CbtMap, type KeptSlice, RequestOp, type TrackerEngine } from "@blksnap/engine";
import { assert, type Reactor } from "@blksnap/uring";
import type { AreaId } from "./area-id.js";
import { CbtJournal } from "./cbt-journal.js";
import type { IoTicker } from "./io-ticker.js";
import type { JournalSetup, LogLocation } from "./journal-io.js";
import type { ReactorNotice } from "./messages.js";

export interface WriteGateOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  readonly ticker: IoTicker;
  readonly engine: TrackerEngine;
  readonly cbt: CbtMap;
  readonly tracker: number;
  readonly notify: (notice: ReactorNotice) => void;
  /** A request that had to wait may continue. */
  readonly onFrontAdmitted: (tag: number) => void;
  readonly onImageAdmitted: (tag: number) => void;
  readonly onKeptAdmitted: () => void;
}

export class WriteGate {
  readonly #options: WriteGateOptions;
  readonly #engine: TrackerEngine;
  #journal: CbtJournal;
  #cbt: CbtMap;

  constructor(options: WriteGateOptions) {
    this.#options = options;
    this.#engine = options.engine;
    this.#cbt = options.cbt;
    this.#journal = this.#open(options.setup, options.cbt);
  }

  get journal(): CbtJournal {
    return this.#journal;
  }

  /**
   * Another map takes the place of this one, with a journal of its own. Only while no write is in flight.
   * @param setup undefined where the journal was dropped, or nothing is to be kept any more
   * @param exchange the maps; where it throws the gate stays as it is
   */
  renew(setup: JournalSetup | undefined, cbt: CbtMap, exchange: () => void): void {
    const before = this.#journal;
    const isKept = setup !== undefined;
    assert(!isKept || !before.io.isBusy, "a journal is renewed between two commits");
    const next = isKept ? this.#open(setup, cbt) : before;
    try {
      exchange();
    } catch (error) {
      if (next !== before) next.drop();
      throw error;
    }
    this.#journal = next;
    this.#cbt = cbt;
    before.drop();
  }

  #open(setup: JournalSetup, cbt: CbtMap): CbtJournal {
    const { engine, tracker, notify, ...options } = this.#options;
    const frontDepth = engine.front.depth;
    const keptId = frontDepth + engine.image.depth;
    return new CbtJournal({
      reactor: options.reactor,
      setup,
      ticker: options.ticker,
      blockShift: cbt.blockShift,
      blockCount: cbt.blockCount,
      requestsMax: keptId + 1,
      isMarked: (block) => cbt.isMarked(block),
      onAdmitted: (id) => {
        if (id === keptId) options.onKeptAdmitted();
        else if (id < frontDepth) options.onFrontAdmitted(id);
        else options.onImageAdmitted(id - frontDepth);
      },
      onFault: (errno) => notify({ notice: "journalFault", tracker, errno }),
      onLow: () => notify({ notice: "journalLow", tracker }),
    });
  }

  /** True: the front request may be issued. False: onFrontAdmitted is called when it may. */
  admitFront(tag: number): boolean {
    const { op, offsetBytes, lengthBytes } = this.#engine.front;
    const kind = op[tag];
    if (kind === RequestOp.READ || kind === RequestOp.FLUSH) return true;
    return this.journal.admit(offsetBytes, lengthBytes, tag);
  }

  /** As admitFront(), for a request of the image that the engine has not seen yet. */
  admitImage(tag: number): boolean {
    const { op, offsetBytes, lengthBytes } = this.#engine.image;
    if (op[tag] !== RequestOp.WRITE) return true;
    return this.journal.admitImage(offsetBytes, lengthBytes, tag, this.#engine.front.depth + tag);
  }

  /** As admitFront(), for a slice of kept-back discards. */
  admitKept({ offsetBytes, lengthBytes }: KeptSlice): boolean {
    const { front, image } = this.#engine;
    return this.journal.admit(offsetBytes, lengthBytes, 0, front.depth + image.depth);
  }

  /** The journal gets a successor; see CbtJournal. */
  mirror(location: LogLocation, done: (firstSequence: number | null) => void): void {
    this.journal.mirror(location, done);
  }

  /** Call it just before the engine switches to the area. */
  noteSwitch(area: AreaId): void {
    this.journal.noteSwitch(this.#cbt.info(), area);
  }
}
