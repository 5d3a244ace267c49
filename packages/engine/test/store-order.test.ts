/**
 * A process may be killed between any two stores. After each store of each operation, the map must show every block
 * as before or as after the operation, never as anything else.
 */
import { BlockState, DiffAreaMap } from "@blksnap/engine";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { touchedChunks } from "./whole-maps.js";

const GEOMETRY = {
  capacityBytes: 4 * 262144,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};
const BLOCKS = 64;

/** The buffer before and after each store that `act` makes. */
function afterEachStore(buffer: ArrayBuffer, map: DiffAreaMap, act: () => void): ArrayBuffer[] {
  const inside = map as unknown as { words: Int32Array };
  const { words } = inside;
  const states = [buffer.slice(0)];
  inside.words = new Proxy(words, {
    get: (target, name) => target[name as unknown as number],
    set: (target, name, value: number) => {
      target[name as unknown as number] = value;
      states.push(buffer.slice(0));
      return true;
    },
  });
  act();
  inside.words = words;
  return states;
}

function statesOf(map: DiffAreaMap, chunk: number): number[] {
  return Array.from({ length: BLOCKS }, (_, block) => map.stateAt(chunk, block));
}

function check(prepare: (map: DiffAreaMap) => void, act: (map: DiffAreaMap) => void): void {
  const buffer = new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY));
  const map = DiffAreaMap.create(buffer, GEOMETRY);
  prepare(map);
  const before = statesOf(map, 2);
  const killed = afterEachStore(buffer, map, () => act(map));
  const after = statesOf(map, 2);
  assert.ok(killed.length > 1);
  for (const copy of killed) {
    const open = DiffAreaMap.open(copy);
    statesOf(open, 2).forEach((state, block) => {
      assert.ok(state === before[block] || state === after[block], `block ${block} is ${state}`);
      if (state === BlockState.DATA) assert.ok(open.slotOf(2) >= 0, `block ${block} without slot`);
    });
    const touched = touchedChunks(open);
    const recorded = open.slotOf(2) >= 0 || open.hasHoles(2);
    assert.is(touched.includes(2), recorded);
  }
}

const withSlot = (map: DiffAreaMap) => map.setSlot(2, 9);

function mixed(map: DiffAreaMap): void {
  map.setSlot(2, 9);
  map.setSaved(2, 3, 40);
  map.setLost(2, 40, 50);
}

test("recording a slot", () =>
  check(
    () => {},
    (map) => map.setSlot(2, 9),
  ));
test("saving blocks across words", () => check(withSlot, (map) => map.setSaved(2, 20, 50)));
test("losing blocks of an untouched chunk", () =>
  check(
    () => {},
    (map) => map.setLost(2, 20, 50),
  ));
test("losing blocks", () => check(mixed, (map) => map.setLost(2, 50, 64)));
test("healing lost blocks", () => check(mixed, (map) => map.setSaved(2, 38, 52)));
test("releasing a chunk", () => check(mixed, (map) => map.release(2)));
test("writing to a released chunk", () => {
  check(
    (map) => {
      mixed(map);
      map.release(2);
      map.setSlot(2, 4);
    },
    (map) => map.setSaved(2, 10, 40),
  );
});

test.run();
