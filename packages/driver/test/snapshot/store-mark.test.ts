import { test } from "uvu";
import * as assert from "uvu/assert";
import { markStore, removeMark } from "../../dist/snapshot/store-mark.js";

const SLOT_BYTES = 2 ** 18;
const SLOT = 3;

/** @param write what the store does with writes */
function surroundings(write: (text: string) => Promise<void>) {
  const context = {
    logger: { warn: () => undefined },
    storeSystem: {
      writeSynced: async (fd: number, offsetBytes: number, bytes: Uint8Array) => {
        assert.equal([fd, offsetBytes], [7, SLOT * SLOT_BYTES]);
        await write(new TextDecoder().decode(bytes).replaceAll("\0", ""));
      },
    },
  };
  let asked = 0;
  const allocateExtentWhenReady = async () => {
    assert.is(asked++, 0, "one slot is enough for all takes");
    return { firstSlot: SLOT, count: 1 };
  };
  const snapshot = {
    ...{ id: "a", slotBytes: SLOT_BYTES, storeMark: undefined },
    storage: {
      stores: [{ fd: 7 }],
      allocateExtentWhenReady,
      track: <Result>(io: Promise<Result>) => io,
    },
  };
  return { context: context as never, snapshot: snapshot as Parameters<typeof markStore>[1] };
}

test("a take after a failed one leaves the recorded mark unchanged", async () => {
  let found = "";
  const { context, snapshot } = surroundings(async (text) => {
    found = text;
  });
  await markStore(context, snapshot);
  const onRecord = snapshot.storeMark;
  const mark = found;
  assert.ok(mark.includes(onRecord?.value ?? "no mark"));
  // A daemon killed now, before the next record, leaves the first one.
  await markStore(context, snapshot);
  assert.equal([snapshot.storeMark, found], [onRecord, mark]);
  await removeMark(context, snapshot);
  assert.equal([snapshot.storeMark, found], [{ slot: SLOT, value: null }, ""]);
});

test("if a store did not accept the mark, the next take writes another one", async () => {
  const written: string[] = [];
  const { context, snapshot } = surroundings(async (text) => {
    written.push(text);
    if (written.length === 1) throw new Error("EIO");
  });
  await markStore(context, snapshot);
  assert.equal(snapshot.storeMark, { slot: SLOT, value: null });
  await markStore(context, snapshot);
  assert.ok(written[1]?.includes(snapshot.storeMark?.value ?? "no mark"));
  assert.is.not(written[0], written[1]);
});

test.run();
