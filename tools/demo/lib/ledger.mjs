/**
 * A program that keeps writing through the instant of take: record n goes to the first volume and
 * reaches its disk, then to the second, and so on. At any one instant the first volume has as many
 * records as the second or one more; two volumes frozen at different times would show it.
 */
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const PAUSE_MS = 10;
const RECORD_BYTES = 16;

function recordText(number) {
  return `${String(number).padStart(RECORD_BYTES - 1, "0")}\n`;
}

export class Ledger {
  #paths;
  #running;
  #stopping = false;
  #error;
  records = 0;
  /** Longest time that writing one record to one volume took. */
  longestMs = 0;

  constructor(paths) {
    this.#paths = paths;
  }

  start() {
    this.#running = this.#write().catch((error) => {
      this.#error = error;
    });
  }

  async #write() {
    const files = [];
    try {
      for (const path of this.#paths) files.push(await open(path, "a"));
      while (!this.#stopping) {
        const text = recordText(this.records + 1);
        for (const file of files) {
          const startMs = performance.now();
          await file.write(text);
          await file.datasync();
          this.longestMs = Math.max(this.longestMs, performance.now() - startMs);
        }
        this.records++;
        await sleep(PAUSE_MS);
      }
    } finally {
      for (const file of files) await file.close();
    }
  }

  /** Waits until so many records are written. */
  async reach(records) {
    while (this.records < records && this.#error === undefined) await sleep(PAUSE_MS);
    if (this.#error) throw this.#error;
  }

  async stop() {
    this.#stopping = true;
    await this.#running;
    if (this.#error) throw this.#error;
  }
}

/** How many records a ledger has. @throws if they are not 1, 2, 3 and so on, each whole */
export function countRecords(path) {
  const text = readFileSync(path, "utf8");
  const count = text.length / RECORD_BYTES;
  for (let number = 1; number <= count; number++) {
    const at = (number - 1) * RECORD_BYTES;
    if (text.slice(at, at + RECORD_BYTES) !== recordText(number)) {
      throw new Error(`${path}: record ${number} is damaged`);
    }
  }
  if (!Number.isInteger(count)) throw new Error(`${path} ends in the middle of a record`);
  return count;
}
