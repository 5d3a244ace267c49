/** How a snapshot handles stores that do not answer. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HungStores } from "../../dist/snapshot/hung-stores.js";

class Storage {
  readonly freed: number[] = [];
  readonly suspended = new Map<number, boolean>();

  free(firstSlot: number): void {
    this.freed.push(firstSlot);
  }

  suspend(store: number, isSuspended: boolean): void {
    this.suspended.set(store, isSuspended);
  }
}

test("a store is skipped as long as it does not answer one of the areas", () => {
  const storage = new Storage();
  const stores = new HungStores();
  stores.note(storage, 1, "a", true);
  stores.note(storage, 1, "b", true);
  stores.note(storage, 1, "a", false);
  assert.is(stores.isHung(1), true);
  assert.is(stores.isHung(0), false);
  assert.is(storage.suspended.get(1), true);
  stores.note(storage, 1, "b", false);
  assert.is(stores.isHung(1), false);
  assert.is(storage.suspended.get(1), false);
});

test("a store that owes an answer only to an area that was dropped serves the others", () => {
  const storage = new Storage();
  const stores = new HungStores();
  stores.note(storage, 1, "a", true);
  stores.note(storage, 1, "b", true);
  stores.areaDropped(storage, "a");
  assert.is(storage.suspended.get(1), true);
  stores.note(storage, 1, "b", false);
  assert.is(storage.suspended.get(1), false);
  assert.is(stores.isHung(1), false);
  assert.is(stores.owesAnswers(1), true, "its late I/O may still arrive");
  stores.note(storage, 1, "b", true);
  assert.is(stores.isHung(1), true);
  assert.is(storage.suspended.get(1), true);
});

test("slots of a failed take are free at once if nothing is late", () => {
  const storage = new Storage();
  new HungStores().undoTake(storage, [3, 4], [{ lateAreas: new Set() }]);
  assert.equal(storage.freed, [3, 4]);
});

test("slots of a failed take that a store may still write are free when it has answered", () => {
  const storage = new Storage();
  const stores = new HungStores();
  const members = [["a"], ["b"], []].map((areas) => ({ lateAreas: new Set(areas) }));
  stores.note(storage, 0, "a", true);
  stores.undoTake(storage, [3, 4], members);
  assert.equal(storage.freed, []);
  assert.is(storage.suspended.get(0), false);
  stores.areaIdle(storage, "a", members);
  assert.equal(storage.freed, []);
  stores.areaIdle(storage, "c", members);
  assert.equal(storage.freed, []);
  stores.areaIdle(storage, "b", members);
  assert.equal(storage.freed, [3, 4]);
});

test.run();
