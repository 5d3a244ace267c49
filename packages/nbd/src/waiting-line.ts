/** Connections that wait for a slot, by index, in order of arrival; each once. */
import type { Connection } from "./connection.js";
import { assert } from "./errors.js";

export class WaitingLine {
  readonly #line: Int32Array;
  #first = 0;
  length = 0;

  constructor(connectionsMax: number) {
    this.#line = new Int32Array(connectionsMax);
  }

  add(connection: Connection): void {
    if (connection.isWaiting) return;
    connection.isWaiting = true;
    this.#line[(this.#first + this.length) % this.#line.length] = connection.index;
    this.length++;
  }

  /** Removes the longest waiter, and returns its index. */
  shift(): number {
    assert(this.length > 0, "none waits");
    const index = this.#line[this.#first];
    this.#first = (this.#first + 1) % this.#line.length;
    this.length--;
    return index;
  }

  remove(connection: Connection): void {
    if (!connection.isWaiting) return;
    connection.isWaiting = false;
    for (let left = this.length; left > 0; left--) {
      const index = this.shift();
      if (index === connection.index) continue;
      this.#line[(this.#first + this.length) % this.#line.length] = index;
      this.length++;
    }
  }
}
