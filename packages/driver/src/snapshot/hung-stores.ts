/**
 * Which stores of a snapshot do not answer its devices, and the slots of a failed take that such a store could still
 * write.
 */
import type { AreaId } from "@blksnap/data-plane";
import type { DiffStorage } from "@blksnap/diff-storage";
import type { Member } from "./member.js";

type LateMember = Pick<Member, "lateAreas">;
type Storage = Pick<DiffStorage, "free" | "suspend">;

export class HungStores {
  /** By store: areas that it does not answer. */
  readonly #areas = new Map<number, Set<AreaId>>();
  /** Areas that do no more I/O, and do not learn any more that a store answers. */
  readonly #dropped = new Set<AreaId>();
  readonly #withheld: number[] = [];

  /** Whether it keeps any area waiting. */
  isHung(store: number): boolean {
    return [...(this.#areas.get(store) ?? [])].some((area) => !this.#dropped.has(area));
  }

  /** Whether late I/O may still write to it, also that of areas that were dropped. */
  owesAnswers(store: number): boolean {
    return (this.#areas.get(store)?.size ?? 0) > 0;
  }

  /** A store does not answer an area, or answers again. */
  note(storage: Storage | undefined, store: number, area: AreaId, hangs: boolean): void {
    const areas = this.#areas.get(store) ?? new Set<AreaId>();
    this.#areas.set(store, areas);
    if (hangs) areas.add(area);
    else areas.delete(area);
    this.#suspend(storage, store);
  }

  /** The area does no more I/O: what a store owes it keeps no other area from that store. */
  areaDropped(storage: Storage | undefined, area: AreaId): void {
    this.#dropped.add(area);
    for (const [store, areas] of this.#areas) if (areas.has(area)) this.#suspend(storage, store);
  }

  /** The areas of a failed take are closed. Their slots are free when none of their I/O is late. */
  undoTake(storage: Storage, slots: Iterable<number>, members: readonly LateMember[]): void {
    for (const [store, areas] of this.#areas) {
      if (areas.size > 0) storage.suspend(store, false);
    }
    this.#areas.clear();
    this.#withheld.push(...slots);
    this.#freeWithheld(storage, members);
  }

  /** The stores have answered all I/O of a closed area. */
  areaIdle(storage: Storage | undefined, area: AreaId, members: readonly LateMember[]): void {
    for (const { lateAreas } of members) lateAreas.delete(area);
    this.#freeWithheld(storage, members);
  }

  #suspend(storage: Storage | undefined, store: number): void {
    storage?.suspend(store, this.isHung(store));
  }

  #freeWithheld(storage: Storage | undefined, members: readonly LateMember[]): void {
    if (members.some(({ lateAreas }) => lateAreas.size > 0)) return;
    for (const slot of this.#withheld.splice(0)) storage?.free(slot, 1);
  }
}
