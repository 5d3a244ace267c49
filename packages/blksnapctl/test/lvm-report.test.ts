/** Which group an image is part of, and which of its volumes is meant. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  chosenVolume,
  type Group,
  groupOf,
  type LogicalRow,
  mapperName,
  type PhysicalRow,
  rowsOf,
} from "../dist/lvm/report.js";

const IMAGE = "/dev/ublkb2";
const PVS = `{"report": [{"pv": [
  {"pv_name":"/dev/blksnap/other", "pv_uuid":"p-2", "vg_name":"pair", "vg_uuid":"g-1", "pv_missing":""},
  {"pv_name":"/dev/ublkb2", "pv_uuid":"p-1", "vg_name":"pair", "vg_uuid":"g-1", "pv_missing":""},
  {"pv_name":"/dev/ublkb4", "pv_uuid":"p-4", "vg_name":"pair", "vg_uuid":"g-2", "pv_missing":""},
  {"pv_name":"/dev/ublkb5", "pv_uuid":"p-5", "vg_name":"", "vg_uuid":"", "pv_missing":""}
]}], "log": []}`;
const physical = rowsOf<PhysicalRow>(PVS, "pv");
const logical = (...volumes: [name: string, attributes: string][]): LogicalRow[] =>
  volumes.map(([lv_name, lv_attr]) => ({ lv_name, lv_attr, lv_size: "96.00m", vg_uuid: "g-1" }));
const nameOf = (path: string) => path.replace("blksnap/other", "ublkb3");

function group(rows: readonly PhysicalRow[], image = IMAGE, volumes: LogicalRow[] = []) {
  const devices: Record<string, string> = { "p-3": "/dev/sdc" };
  return groupOf(image, rows, volumes, nameOf, (uuid) => devices[uuid]);
}

test("the group has its own images and volumes, by whatever name LVM tells them, and no pools", () => {
  const volumes = logical(["data", "-wi-------"], ["pool", "twi-------"], ["thin", "Vwi-------"]);
  const other = { ...volumes[0]!, vg_uuid: "g-2" };
  assert.equal(group(physical, IMAGE, [...volumes, other]), {
    name: "pair",
    images: ["/dev/ublkb3", IMAGE],
    volumes: [volumes[0], volumes[2]],
  });
});

test("a group of which something is missing is refused by its names, and a volume of none", () => {
  const absent = { vg_name: "pair", vg_uuid: "g-1", pv_missing: "missing", pv_name: "[unknown]" };
  const missing = [...physical, { ...absent, pv_uuid: "p-3" }, { ...absent, pv_uuid: "p-6" }];
  const refused = group(missing);
  assert.match(
    "why" in refused ? refused.why : "taken",
    /pair.* not in the snapshot: p-3 \(\/dev\/sdc\), p-6$/,
  );
  const without = group(physical, "/dev/ublkb5");
  assert.match("why" in without ? without.why : "taken", "belongs to no volume group");
  const unknown = group(physical, "/dev/ublkb9");
  assert.match("why" in unknown ? unknown.why : "taken", "belongs to no volume group");
});

test("a volume is chosen by its name, or is the only one", () => {
  const has = (...names: string[]): Group => {
    const volumes = logical(...names.map((name): [string, string] => [name, "-wi-------"]));
    return { name: "pair", images: [IMAGE], volumes };
  };
  const said = (its: Group, wanted?: string) => {
    const found = chosenVolume(its, wanted);
    return "why" in found ? `${found.why}. ${found.hint}` : found.lv_name;
  };
  assert.is(said(has("data")), "data");
  assert.is(said(has("data", "other"), "other"), "other");
  const list = "data (96.00m), other (96.00m)";
  assert.match(
    said(has("data", "other")),
    `several logical volumes. Choose one with --lv: ${list}`,
  );
  assert.match(said(has("data", "other"), "none"), `no volume none. It has ${list}`);
  assert.match(said(has()), "no logical volumes");
});

test("the device mapper doubles hyphens", () => {
  assert.is(mapperName("blksnap_1_2", "my-data"), "blksnap_1_2-my--data");
});

test.run();
