/**
 * Writes the whole map of an area into the log of its journal's successor, part by part. Each part gives the state
 * at the time when its commit is sealed; changes in between are in the log as well.
 */
import type { DiffAreaMap } from "@blksnap/engine";
import type { JournalWriter } from "@blksnap/journal";
import { AreaEncoder } from "./area-encoder.js";
import type { Compaction } from "./journal-io.js";
import { REACTOR_TURN_UNITS } from "./turns.js";

export class AreaCompaction implements Compaction {
  /** Sequence number of the successor's first sector. */
  firstSequence = 0;
  readonly #encoder: AreaEncoder;
  readonly #onEnd: (firstSequence: number | null) => void;
  /** The commit that has the last part. */
  #lastCommit: number | undefined;
  #ended = false;

  /** @param onEnd called when everything is on the medium; with null if it was given up */
  constructor(map: DiffAreaMap, onEnd: (firstSequence: number | null) => void) {
    this.#encoder = new AreaEncoder(map);
    this.#onEnd = onEnd;
  }

  get isPending(): boolean {
    return !this.#encoder.isDone;
  }

  prepend(writer: JournalWriter): void {
    this.#encoder.step(writer.prefixRoom, REACTOR_TURN_UNITS, (op, a, b, c) =>
      writer.prepend(op, a, b, c),
    );
    if (!this.#encoder.isDone) return;
    this.#lastCommit = writer.fillingCommit;
    if (writer.sectorsToSeal === 0) this.end(this.firstSequence);
  }

  /** The commit is on the medium. */
  committed(commit: number): void {
    if (this.#lastCommit !== undefined && this.#lastCommit - commit <= 0) {
      this.end(this.firstSequence);
    }
  }

  /** Calls onEnd, once. */
  end(firstSequence: number | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onEnd(firstSequence);
  }
}
