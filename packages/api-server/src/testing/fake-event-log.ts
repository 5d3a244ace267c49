/** A log of the whole daemon that contains what a test puts into it. */
import type { DaemonEvent, EventLogControl, EventLogOptions } from "@blksnap/api";

type Stamp = "sequence" | "log" | "wall_time";
type WithoutStamp<E> = E extends DaemonEvent ? Omit<E, Stamp> : never;
/** An event as its source provides it. */
export type FakeDaemonEvent = WithoutStamp<DaemonEvent>;

export class FakeEventLog implements EventLogControl {
  /** Id of the log; a daemon after a reboot has another one. */
  log = "0badcafe";
  /** How often a request has triggered it. */
  polls = 0;
  readonly #kept: DaemonEvent[] = [];
  #hasEnded = false;
  readonly #wakers = new Set<() => void>();

  /** How many readers wait now. */
  get sleepers(): number {
    return this.#wakers.size;
  }

  /** Ends all readers. */
  end(): void {
    this.#hasEnded = true;
    for (const wake of this.#wakers) wake();
  }

  poll(): void {
    this.polls++;
  }

  push(event: FakeDaemonEvent): void {
    const sequence = this.#kept.length + 1;
    const stamp = { sequence, log: this.log, wall_time: new Date().toISOString() };
    this.#kept.push({ ...event, ...stamp } as DaemonEvent);
    for (const wake of this.#wakers) wake();
  }

  async *read(options: EventLogOptions, signal: AbortSignal): AsyncGenerator<DaemonEvent> {
    const { since = 0, log = this.log, follow = false } = options;
    let next = log === this.log ? since : 0;
    while (!signal.aborted && !this.#hasEnded) {
      const event = this.#kept[next];
      if (event === undefined && !follow) return;
      if (event === undefined) await this.#sleep(signal);
      else yield event;
      if (event !== undefined) next++;
    }
  }

  #sleep(signal: AbortSignal): Promise<void> {
    return new Promise((done) => {
      const wake = () => {
        signal.removeEventListener("abort", wake);
        this.#wakers.delete(wake);
        done();
      };
      this.#wakers.add(wake);
      signal.addEventListener("abort", wake);
    });
  }
}
