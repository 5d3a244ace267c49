/**
 * First-in first-out queues of requests, threaded through one shared array.
 *
 *     links    [ -1 | 4 | -1 | -1 | 2 | ... ]      links[id] = id of the next request in the same queue
 *                    ^---------------^
 *     queue    head = 1 -> 4 -> 2 = tail
 *
 * Front tag t has id t, image tag t has id frontDepth + t. A request is on one queue at most, so one
 * link per request is enough, and no queue can be full.
 */

export const NONE = -1;

export class RequestQueue {
  head: number = NONE;
  tail: number = NONE;
  private readonly links: Int32Array;

  constructor(links: Int32Array) {
    this.links = links;
  }

  isEmpty(): boolean {
    return this.head === NONE;
  }

  push(id: number): void {
    this.links[id] = NONE;
    if (this.tail === NONE) this.head = id;
    else this.links[this.tail] = id;
    this.tail = id;
  }

  /** The oldest request, or NONE. */
  pop(): number {
    const id = this.head;
    if (id === NONE) return NONE;
    this.head = this.links[id];
    if (this.head === NONE) this.tail = NONE;
    return id;
  }

  /** Appends the chain `head`..`tail`, in its order. `head` may be NONE. */
  append(head: number, tail: number): void {
    if (head === NONE) return;
    if (this.tail === NONE) this.head = head;
    else this.links[this.tail] = head;
    this.tail = tail;
  }

  /** Appends all requests of `other`, and empties it. */
  appendAll(other: RequestQueue): void {
    this.append(other.head, other.tail);
    other.head = NONE;
    other.tail = NONE;
  }
}
