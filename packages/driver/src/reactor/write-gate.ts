/**
 * What stands before the original of a persistent tracker: no write passes that the tracker's journal
 * does not know of.
 */
import { type CbtMap, RequestOp, type TrackerEngine } from "@blksnap/engine";
import type { Reactor } from "@blksnap/uring";
import { CbtJournal } from "./cbt-journal.js";
import type { IoTicker } from "./io-ticker.js";
import type { JournalSetup, LogPlace } from "./journal-io.js";
import type { ReactorNotice } from "./messages.js";

export interface WriteGateOptions {
  readonly reactor: Reactor;
  readonly setup: JournalSetup;
  readonly ticker: IoTicker;
  readonly engine: TrackerEngine;
  readonly cbt: CbtMap;
  readonly tracker: number;
  readonly notify: (notice: ReactorNotice) => void;
  /** A request that had to wait may go on. */
  readonly onFrontAdmitted: (tag: number) => void;
  readonly onImageAdmitted: (tag: number) => void;
}

export class WriteGate {
  readonly journal: CbtJournal;
  readonly #engine: TrackerEngine;
  readonly #cbt: CbtMap;

  constructor(options: WriteGateOptions) {
    const { engine, cbt, tracker, notify } = options;
    this.#engine = engine;
    this.#cbt = cbt;
    const frontDepth = engine.front.depth;
    this.journal = new CbtJournal({
      reactor: options.reactor,
      setup: options.setup,
      ticker: options.ticker,
      blockShift: cbt.blockShift,
      blockCount: cbt.blockCount,
      requestsMax: frontDepth + engine.image.depth,
      isMarked: (block) => cbt.isMarked(block),
      onAdmitted: (id) => {
        if (id < frontDepth) options.onFrontAdmitted(id);
        else options.onImageAdmitted(id - frontDepth);
      },
      onFault: (errno) => notify({ notice: "journalFault", tracker, errno }),
      onLow: () => notify({ notice: "journalLow", tracker }),
    });
  }

  /** True: the front request may be issued. False: it is told to onFrontAdmitted when it may. */
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

  /** The journal gets a successor; see CbtJournal. */
  mirror(place: LogPlace): number | null {
    return this.journal.mirror(place);
  }

  /** Just before the engine switches. */
  noteSwitch(): void {
    this.journal.noteSwitch(this.#cbt.info());
  }
}
