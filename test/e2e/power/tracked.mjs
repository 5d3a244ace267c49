/**
 * The host's knowledge of a tracked disk: which blocks were written since the last reported take, and so must be in
 * the diff; and which may be, because they were written during a take.
 */
export const BLOCK_BYTES = 4096;
/** What the journal may record ahead of a writer in sequence. */
const AHEAD_BLOCKS = (4 * 2 ** 20) / BLOCK_BYTES;

export class Tracked {
  /** Number of the last take that was reported. */
  number = 0;
  /** A take was begun after it. */
  takeIsOpen = false;
  generation;
  #written = new Set();
  /** Since the last take was begun. */
  #sinceBegin = new Set();
  #maybe = new Set();

  written(offsetBytes, lengthBytes) {
    const last = Math.floor((offsetBytes + lengthBytes - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offsetBytes / BLOCK_BYTES); block <= last; block++) {
      this.#written.add(block);
      this.#sinceBegin.add(block);
    }
  }

  takeBegins() {
    this.takeIsOpen = true;
    this.#sinceBegin = new Set();
  }

  taken(number) {
    this.number = number;
    this.takeIsOpen = false;
    this.#maybe = this.#sinceBegin;
    this.#written = new Set();
    this.#sinceBegin = new Set();
  }

  /** To be compared with the diff of the next take. */
  expectation() {
    const { number, takeIsOpen } = this;
    return { number, takeIsOpen, written: this.#written, maybe: this.#maybe };
  }
}

/**
 * @param {ReturnType<Tracked["expectation"]>} expected
 * @param {{offset_bytes: number, length_bytes: number}[]} ranges of the diff
 * @param {{exact?: boolean}} [options] exact: nothing may be recorded ahead
 * @returns {{problem: string | undefined, blocks: number, beyond: number}}
 */
export function compareDiff(expected, ranges, { exact = false } = {}) {
  const found = new Set();
  for (const { offset_bytes: offset, length_bytes: length } of ranges) {
    const first = offset / BLOCK_BYTES;
    const end = (offset + length) / BLOCK_BYTES;
    for (let block = first; block < end; block++) found.add(block);
  }
  const { written, maybe } = expected;
  const missed = [...written].filter((block) => !found.has(block));
  const beyond = [...found].filter((block) => !written.has(block) && !maybe.has(block)).length;
  // Each run ahead is as long as what was written before it at most.
  const most = exact ? 0 : Math.max(AHEAD_BLOCKS, written.size + maybe.size);
  let problem;
  if (missed.length > 0)
    problem = `${missed.length} written blocks are not in the diff: ${missed.slice(0, 8)}`;
  else if (beyond > most) problem = `${beyond} blocks are in the diff and were never written`;
  return { problem, blocks: found.size, beyond };
}
