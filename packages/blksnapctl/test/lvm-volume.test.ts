/** With which programs a volume in an image gets a node, and what is done if one of them fails. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ownId } from "../dist/lvm/names.js";
import { openVolume } from "../dist/lvm/volume.js";

const IMAGES = ["/dev/ublkb2", "/dev/ublkb3"];
const ID = ownId();
const OVERLAYS = [`/dev/mapper/blksnap-mount-${ID}-0`, `/dev/mapper/blksnap-mount-${ID}-1`];

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnapctl-volume-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

const rows = (kind: string, all: object[]) => JSON.stringify({ report: [{ [kind]: all }] });
const ANSWERS: Readonly<Record<string, string>> = {
  pvs: rows(
    "pv",
    IMAGES.map((pv_name) => ({
      ...{ pv_name, pv_uuid: pv_name, vg_name: "pair", vg_uuid: "g", pv_missing: "" },
    })),
  ),
  lvs: rows("lv", [{ lv_name: "my-data", lv_attr: "-wi", lv_size: "1g", vg_uuid: "g" }]),
  blockdev: "1048576\n",
  losetup: "/dev/loop7\n",
};

/** @param atStep told of each program before it runs */
function opening(
  atStep: (name: string) => void = () => undefined,
  left: readonly string[] = [],
  image = IMAGES[0]!,
) {
  const calls: string[][] = [];
  const takenDown: string[] = [];
  const giveUp = new AbortController();
  const system = {
    program: async (name: string, ...words: string[]) => {
      calls.push([name, ...words]);
      atStep(name);
      return ANSWERS[name] ?? "";
    },
    removeLeftovers: async () => [],
    takeDown: async (id: string) => {
      takenDown.push(id);
      return [...left];
    },
    memoryFolder: folder,
  };
  const wanted = { image, images: IMAGES, volume: undefined, signal: giveUp.signal };
  return { opened: () => openVolume(wanted, system), calls, takenDown, giveUp };
}

test("LVM gets its devices and settings, and changes only the overlays", async () => {
  const { opened, calls, takenDown } = opening();
  const { path, name, close } = await opened();
  assert.equal([path, name], [`/dev/mapper/blksnap_${ID}-my--data`, "pair/my-data"]);
  const lvm = calls.filter(([, option]) => option === "--devices");
  assert.equal(
    lvm.map(([program, , devices]) => [program, devices]),
    [
      ["pvs", IMAGES.join()],
      ["lvs", IMAGES.join()],
      ["vgimportclone", OVERLAYS.join()],
      ["lvchange", OVERLAYS.join()],
    ],
  );
  for (const words of lvm) assert.match(words[4]!, /archive = 0.*monitoring = 0.*hints = "none"/);
  const [, second] = calls.filter(([program]) => program === "dmsetup");
  const node = `blksnap-mount-${ID}-1`;
  const table = `0 2048 snapshot ${IMAGES[1]} /dev/loop7 N 8`;
  assert.equal(second, ["dmsetup", "create", node, "--uuid", node, "--table", table]);
  assert.equal(calls.at(-1)?.slice(5), [
    "--yes",
    "--activate",
    "y",
    "--ignoreactivationskip",
    `blksnap_${ID}/my-data`,
  ]);
  assert.equal([readdirSync(folder), takenDown], [[], []], "memory has no name");
  await close();
  assert.equal(takenDown, [ID]);
});

test("the first overlay is that of the image that was given", async () => {
  const { opened, calls } = opening(undefined, [], IMAGES[1]);
  await opened();
  const tables = calls.filter(([program]) => program === "dmsetup").map((words) => words.at(-1));
  assert.match(tables[0]!, IMAGES[1]!);
  assert.match(tables[1]!, IMAGES[0]!);
});

for (const step of ["losetup", "dmsetup", "vgimportclone", "lvchange"]) {
  test(`all is taken down if ${step} fails, and what is left is named`, async () => {
    const { opened, takenDown } = opening(
      (name) => {
        if (name === step) throw new Error(`${step} says no`);
      },
      ["a node: busy"],
    );
    const message = await opened().then(
      () => "",
      (error) => error.message,
    );
    assert.is(message, `${step} says no; this is left: a node: busy`);
    assert.equal([takenDown, readdirSync(folder)], [[ID], []]);
  });
}

test("if its user gives up, it is taken down after the current step", async () => {
  const { opened, takenDown, giveUp, calls } = opening((name) => {
    if (name === "vgimportclone") giveUp.abort();
  });
  assert.match(await opened().catch(({ message }) => message), "given up");
  assert.equal([calls.at(-1)?.[0], takenDown], ["vgimportclone", [ID]]);
});

test.run();
