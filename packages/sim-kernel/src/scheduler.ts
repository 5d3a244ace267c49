/**
 * Simulated time: a queue of events. Nothing happens between two events, and their order depends on their times and the
 * order in which they were created.
 */

/** An owner of events: after its death none of them happens. */
export interface EventOwner {
  readonly isAlive: boolean;
}

/** A future event. */
export class SimEvent {
  readonly atUs: number;
  readonly order: number;
  /** Undefined: the machine, or the test. */
  readonly owner: EventOwner | undefined;
  /** It may run code that awaits something, which runs before the next event. */
  readonly isMain: boolean;
  action: (() => void) | undefined;

  constructor(
    atUs: number,
    order: number,
    owner: EventOwner | undefined,
    isMain: boolean,
    action: () => void,
  ) {
    this.atUs = atUs;
    this.order = order;
    this.owner = owner;
    this.isMain = isMain;
    this.action = action;
  }

  cancel(): void {
    this.action = undefined;
  }
}

function isBefore(one: SimEvent, other: SimEvent): boolean {
  return one.atUs < other.atUs || (one.atUs === other.atUs && one.order < other.order);
}

export class Scheduler {
  /** Since the simulation began. */
  nowUs = 0;
  /** How many events have happened. */
  count = 0;
  readonly #heap: SimEvent[] = [];
  #order = 0;

  /** Schedules an event. */
  after(
    delayUs: number,
    action: () => void,
    owner?: EventOwner | undefined,
    isMain = false,
  ): SimEvent {
    const at = this.nowUs + Math.max(0, delayUs);
    const event = new SimEvent(at, this.#order++, owner, isMain, action);
    this.#push(event);
    return event;
  }

  /** Runs the next event. @returns it, or undefined if there is none */
  step(): SimEvent | undefined {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) return undefined;
      const { action } = event;
      if (action === undefined || event.owner?.isAlive === false) continue;
      this.nowUs = event.atUs;
      this.count++;
      event.action = undefined;
      action();
      return event;
    }
  }

  /** Cancels the machine's own events. */
  cancelMachine(): void {
    for (const event of this.#heap) {
      if (event.owner === undefined && !event.isMain) event.cancel();
    }
  }

  /** Runs the machine's own next event: no program's code runs. */
  stepMachine(): boolean {
    let next: SimEvent | undefined;
    for (const event of this.#heap) {
      if (event.isMain || event.owner !== undefined || event.action === undefined) continue;
      if (next === undefined || isBefore(event, next)) next = event;
    }
    if (next === undefined) return false;
    const { action } = next;
    next.cancel();
    this.nowUs = Math.max(this.nowUs, next.atUs);
    this.count++;
    action?.();
    return true;
  }

  #push(event: SimEvent): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent])) break;
      heap[at] = heap[parent];
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): SimEvent | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = last;
    return first;
  }
}
