/** Entries of a tracker's journal that concern a diff area. */
import { CbtMap } from "@blksnap/engine";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type AppendEntry,
  CbtOp,
  CbtReplay,
  encodeAreaLost,
  encodeSwitch,
} from "../dist/journal-entries.js";

const test = suite("journal-entries");

const AREA = "a8b4d1f0-0d4e-4a57-9c1e-3f5b7a90e2c6";
const ANOTHER = "12345678-9abc-4def-8123-456789abcdef";

function newMap(): CbtMap {
  const map = { capacityBytes: 2 ** 20, blockShift: 16, generation: new Uint8Array(16).fill(7) };
  return CbtMap.create(new ArrayBuffer(CbtMap.byteLength(map.capacityBytes, 16)), map);
}

/** Replays a journal with such entries. */
function replayed(write: (append: AppendEntry, map: CbtMap) => void): CbtReplay {
  const replay = new CbtReplay(newMap());
  // As in a log.
  write((...entry) => {
    const [op, a, b, c] = Uint32Array.from(entry) as unknown as Parameters<AppendEntry>;
    replay.apply(op, a, b, c);
  }, newMap());
  return replay;
}

test("a loss entry counts only for the area that it names", () => {
  const replay = replayed((append, map) => {
    encodeSwitch(map.info(), AREA, append);
    append(CbtOp.MARK, 1, 2, 0);
    encodeAreaLost(ANOTHER, append);
  });
  assert.is(replay.problemOf(AREA), undefined);
  assert.equal(replay.lostBeside(AREA), [ANOTHER]);
  assert.is(replay.problemOf(ANOTHER), `old data of the area ${ANOTHER} was lost`);
  assert.equal(replay.lostBeside(ANOTHER), []);
});

test("an area is refused if another was taken since, even if its own loss was before", () => {
  const replay = replayed((append, map) => {
    encodeSwitch(map.info(), AREA, append);
    encodeAreaLost(AREA, append);
    map.switch();
    encodeSwitch(map.info(), ANOTHER, append);
  });
  assert.is(replay.problemOf(ANOTHER), undefined);
  const why = `the last take was that of the area ${ANOTHER}, not of ${AREA}`;
  assert.is(replay.problemOf(AREA), why);
});

test("a switch is applied once, whether or not it names its area", () => {
  for (const isNamed of [true, false]) {
    const map = newMap();
    const replay = new CbtReplay(map);
    const before = map.info();
    for (let time = 0; time < 2; time++) {
      encodeSwitch(before, AREA, (op, a, b, c) => {
        if (isNamed) replay.apply(op, a >>> 0, b >>> 0, c >>> 0);
        else if (op === CbtOp.SWITCH) replay.apply(op, a, b, 0);
      });
    }
    assert.is(map.info().changesNumber, before.changesNumber + 1);
  }
});

test("entries of daemons that named no area belong to the tracker's area of the time", () => {
  const lost = replayed((append) => append(CbtOp.AREA_LOST, 0, 0, 0));
  assert.is(lost.problemOf(AREA), `old data of the area ${AREA} was lost`);
  const taken = replayed((append, map) => {
    append(CbtOp.AREA_LOST, 0, 0, 0);
    encodeSwitch(map.info(), AREA, (op, a, b) => {
      if (op === CbtOp.SWITCH) append(op, a, b, 0);
    });
  });
  assert.is(taken.problemOf(AREA), undefined);
  assert.is(taken.problemOf(ANOTHER), undefined);
});

test("a name without its entry is the end of a torn log; before another entry it is damage", () => {
  const torn = replayed((append) => append(CbtOp.AREA, 1, 2, 3));
  assert.is(torn.problemOf(AREA), undefined);
  const damaged = (): unknown =>
    replayed((append) => {
      append(CbtOp.AREA, 1, 2, 3);
      append(CbtOp.MARK, 0, 1, 0);
    });
  assert.throws(damaged, /operation 1 is of no diff area/);
});

test.run();
