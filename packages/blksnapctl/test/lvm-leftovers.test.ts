/** What a mount of a volume has made is found by its names, and removed from the top, unless it is in use. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  imageOf,
  type LeftoverSystem,
  loopsIn,
  nodesIn,
  removeLeftovers,
  takeDown,
} from "../dist/lvm/leftovers.js";
import { idOfName, idOfVolume, isBeingMade, ownId } from "../dist/lvm/names.js";

const ID = "12_3456";
const OTHER = "13_3456";

test("names say what each thing belongs to", () => {
  assert.equal(
    [`blksnap-mount-${ID}-0`, `blksnap_${ID}-my--data`, `blksnap_${ID}-pool_tdata`].map(idOfName),
    [ID, ID, ID],
  );
  const foreign = ["vg-data", "vg-data-blksnap", "blksnap-mount-x-0", `blksnap_${ID}`, "blksnap"];
  assert.equal(
    foreign.map(idOfName),
    foreign.map(() => undefined),
  );
  assert.is(idOfVolume(`/dev/mapper/blksnap_${ID}-data`), ID);
  assert.is(idOfVolume("/dev/mapper/vg-data"), undefined);
});

test("the image is what lies below the first overlay, beside the memory", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnapctl-leftovers-"));
  try {
    // A file has no device number.
    writeFileSync(join(folder, `blksnap-mount-${ID}-0`), "");
    for (const name of ["loop7", "ublkb2"])
      mkdirSync(join(folder, "0:0/slaves", name), { recursive: true });
    assert.is(imageOf(ID, folder, folder), "/dev/ublkb2");
    assert.is(imageOf(OTHER, folder, folder), undefined);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a process is the one that began then", () => {
  assert.ok(isBeingMade(ownId()));
  const [pid] = ownId().split("_");
  assert.not(isBeingMade(`${pid}_1`));
  assert.not(isBeingMade("999999999_1"));
});

test("nodes and loop devices of others are passed over", () => {
  const text = `vg-data 254 0 1\nblksnap_${ID}-data 254 4 1\nblksnap-mount-${ID}-0 254 2 1\n`;
  const holders = (number: string) => (number === "254:2" ? 1 : 0);
  assert.equal(nodesIn(text, holders), [
    { name: `blksnap_${ID}-data`, id: ID, opens: 1, holders: 0 },
    { name: `blksnap-mount-${ID}-0`, id: ID, opens: 1, holders: 1 },
  ]);
  assert.equal(nodesIn("No devices found\n"), []);
  const file = `blksnap-mount-${ID}-0`;
  const loops = `/dev/loop0 /tmp/a.img\n/dev/loop1 /run/${file}\\x20(deleted)\n/dev/loop2 /run/${file}\n/dev/loop3 /run/x\n`;
  assert.equal(loopsIn(loops), [
    { path: "/dev/loop1", file },
    { path: "/dev/loop2", file },
  ]);
});

/** Nodes with those that they lie on; a volume has users of its own. */
function machine(users: Record<string, number> = {}, stuck: readonly string[] = []) {
  const below: Record<string, string[]> = {};
  for (const id of [ID, OTHER]) {
    below[`blksnap-mount-${id}-0`] = [];
    below[`blksnap_${id}-pool_tdata`] = [`blksnap-mount-${id}-0`];
    below[`blksnap_${id}-thin`] = [`blksnap_${id}-pool_tdata`];
  }
  const loops = [{ path: "/dev/loop7", file: `blksnap-mount-${ID}-1` }];
  const files = [`blksnap-mount-${ID}-2`];
  const holders = (name: string) => Object.values(below).filter((its) => its.includes(name)).length;
  const system: LeftoverSystem = {
    nodes: async () =>
      Object.keys(below).map((name) => {
        const opens = holders(name) + (users[name] ?? 0);
        return { name, id: idOfName(name)!, opens, holders: holders(name) };
      }),
    remove: async (name) => {
      assert.is(holders(name), 0, name);
      if (stuck.includes(name)) throw new Error("Device or resource busy");
      delete below[name];
    },
    loops: async () => [...loops],
    detachLoop: async (path) => {
      loops.splice(
        loops.findIndex((one) => one.path === path),
        1,
      );
    },
    files: () => [...files],
    removeFile: (name) => void files.splice(files.indexOf(name), 1),
    isBeingMade: (id) => id === OTHER,
  };
  return {
    system,
    there: () => [...Object.keys(below), ...loops.map(({ file }) => file), ...files],
  };
}

test("all of one mount is removed, and nothing of another", async () => {
  const { system, there } = machine();
  assert.equal(await takeDown(ID, system), []);
  assert.equal(there().map(idOfName), [OTHER, OTHER, OTHER]);
});

test("of one that is in use nothing is removed, and the user's node is named", async () => {
  const { system, there } = machine({ [`blksnap_${ID}-thin`]: 1 });
  assert.equal(await takeDown(ID, system), [`/dev/mapper/blksnap_${ID}-thin, which is in use`]);
  assert.is(there().length, 8);
  assert.equal(await removeLeftovers(system), []);
  assert.is(there().length, 8);
});

test("what cannot be removed is named with the reason, and the rest goes", async () => {
  const stuck = `blksnap_${ID}-pool_tdata`;
  const { system, there } = machine({}, [stuck]);
  const left = await takeDown(ID, system);
  assert.equal(left, [`blksnap-mount-${ID}-0`, `${stuck}: Device or resource busy`]);
  assert.is(there().length, 5);
});

test("what a killed command has left is removed, and what is being made is not", async () => {
  const { system, there } = machine();
  assert.equal(await removeLeftovers(system), []);
  assert.is(there().length, 3);
  assert.ok(there().every((name) => idOfName(name) === OTHER));
});

test.run();
