import type { Store } from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { StoreRecord } from "../../dist/records/records.js";
import { hideStore, storeFiles } from "../../dist/snapshot/hidden-store.js";
import { storeRecord } from "../../dist/snapshot/store-record.js";

const SNAPSHOT = "cc10a0c0-0d4c-4f5c-8f3e-0f6e0f0f0001";
const FILE = (await storeRecord("memory:", SNAPSHOT, 1)).fileName as string;
const RECORDS: StoreRecord[] = [
  { path: "/dev/mapper/store" },
  { path: "/var/tmp", fileName: FILE },
  { path: "/srv", fileName: `${FILE}-other` },
];

function snapshotOf(steps: string[], stores: readonly StoreRecord[] = RECORDS) {
  const rename = async (fileName: string, onRenamed: () => void): Promise<void> => {
    onRenamed();
    steps.push(`${fileName} is on the medium`);
  };
  return {
    id: SNAPSHOT,
    slotBytes: 2 ** 18,
    stores,
    storage: {
      stores: stores.map(() => ({ rename })) as unknown as Store[],
      track: <Result>(io: Promise<Result>) => io,
    },
  };
}

function contextOf(steps: string[], assertAnswers?: (path: string) => Promise<void>) {
  const name = `snapshot-${SNAPSHOT}`;
  const record = {
    ...{ id: SNAPSHOT, stores: RECORDS, persistent: true },
    members: ["one that is not added again yet"],
  };
  const records = [{ name, value: record }];
  const state = {
    readRecords: (prefix: string) => records.filter((found) => found.name === prefix),
    writeRecord: (_name: string, value: typeof record) => {
      records[0] = { name, value };
      steps.push("on record here");
    },
  };
  return { records, state, storeSystem: { ...(assertAnswers && { assertAnswers }) } };
}

test("the first store with a name of ours is renamed, and removed under the new name", async () => {
  const steps: string[] = [];
  const snapshot = snapshotOf(steps);
  const context = contextOf(steps);
  const before = context.records[0]?.value;
  await hideStore(context as never, snapshot);
  const records = snapshot.stores;
  assert.equal(context.records[0]?.value, { ...before, stores: records, persistent: false });
  const after = records[1]!.fileName as string;
  assert.equal(steps, ["on record here", `${after} is on the medium`]);
  assert.equal([records[0], records[2]], [RECORDS[0], RECORDS[2]]);
  // Both with the medium's record and with the next daemon's.
  for (const known of [RECORDS, records]) assert.ok(storeFiles(SNAPSHOT, known, 1).includes(after));
  assert.ok(storeFiles(SNAPSHOT, RECORDS, 1).includes(FILE));
  assert.not(storeFiles(SNAPSHOT, RECORDS, 2).includes(after));
  assert.equal(storeFiles(SNAPSHOT, RECORDS, 0), []);
  const again = hideStore(context as never, snapshot).then(
    () => "hidden",
    ({ message }: Error) => message,
  );
  assert.match(await again, /under that name already/);
});

test("a disk that does not answer is not accessed, and a device keeps its name", async () => {
  const steps: string[] = [];
  const asked: string[] = [];
  const assertAnswers = async (path: string): Promise<void> => {
    asked.push(path);
    throw new Error("no answer");
  };
  const why = ({ message }: Error): string => message;
  const hung = hideStore(contextOf(steps, assertAnswers) as never, snapshotOf(steps));
  assert.is(await hung.catch(why), "no answer");
  assert.equal(asked, [`/var/tmp/${FILE}`]);
  const devices = hideStore(contextOf(steps) as never, snapshotOf(steps, RECORDS.slice(0, 1)));
  assert.match(String(await devices.catch(why)), /none of its stores has a mark/);
  assert.equal(steps, ["on record here"]);
});

test.run();
