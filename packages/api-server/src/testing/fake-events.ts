/** The event queue of a fake snapshot: consumed by waiters in turn, kept for followers. */
import type { SnapshotEvent } from "@blksnap/api";
import { ControlError } from "@blksnap/api";

type WithoutStamp<E> = E extends SnapshotEvent
  ? Omit<E, "sequence" | "time_us" | "wall_time">
  : never;
/** An event as its source provides it. */
export type FakeEvent = WithoutStamp<SnapshotEvent>;

export class FakeEvents {
  readonly #id: string;
  readonly #kept: SnapshotEvent[] = [];
  readonly #wakers = new Set<() => void>();
  readonly #consumed = new Map<string, number>();
  #destroyed = false;

  constructor(id: string) {
    this.#id = id;
  }

  /** How many waits and followers wait now. */
  get sleepers(): number {
    return this.#wakers.size;
  }

  get pending(): number {
    return this.#pendingOf("");
  }

  get list(): readonly SnapshotEvent[] {
    return this.#kept;
  }

  #pendingOf(reader: string): number {
    return this.#kept.length - (this.#consumed.get(reader) ?? 0);
  }

  push(event: FakeEvent): void {
    const stamp = {
      sequence: this.#kept.length + 1,
      time_us: Math.floor(Number(process.hrtime.bigint()) / 1000),
      wall_time: new Date().toISOString(),
    };
    this.#kept.push({ ...event, ...stamp } as SnapshotEvent);
    this.#wake();
  }

  destroy(): void {
    this.#destroyed = true;
    this.#wake();
  }

  async wait(
    timeoutMs: number,
    signal: AbortSignal,
    reader = "",
  ): Promise<SnapshotEvent | undefined> {
    const deadline = performance.now() + timeoutMs;
    while (this.#pendingOf(reader) === 0) {
      if (this.#destroyed) {
        throw new ControlError("SNAPSHOT_NOT_FOUND", `snapshot ${this.#id} was destroyed`);
      }
      const left = deadline - performance.now();
      if (signal.aborted || left <= 0) return undefined;
      await this.#sleep(left, signal);
    }
    const next = this.#consumed.get(reader) ?? 0;
    this.#consumed.set(reader, next + 1);
    return this.#kept[next];
  }

  async *follow(from: number, signal: AbortSignal): AsyncGenerator<SnapshotEvent> {
    let next = Math.max(0, from - 1);
    while (!signal.aborted) {
      if (next < this.#kept.length) yield this.#kept[next++]!;
      else if (this.#destroyed) return;
      else await this.#sleep(undefined, signal);
    }
  }

  #wake(): void {
    for (const wake of this.#wakers) wake();
  }

  #sleep(timeoutMs: number | undefined, signal: AbortSignal): Promise<void> {
    return new Promise((done) => {
      const timer = timeoutMs === undefined ? undefined : setTimeout(wake, timeoutMs);
      const wakers = this.#wakers;
      function wake(): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", wake);
        wakers.delete(wake);
        done();
      }
      wakers.add(wake);
      signal.addEventListener("abort", wake);
    });
  }
}
