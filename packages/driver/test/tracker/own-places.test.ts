import { linkSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { pathTarget } from "../../dist/system/path-target.js";
import { assertNotOurs, ownPlaces } from "../../dist/tracker/own-places.js";

const test = suite("own places");
let folder: string;

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-own-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

test("files that the daemon writes to are refused as originals, by any of their names", async () => {
  const [file, link, other] = [join(folder, "store"), join(folder, "link"), join(folder, "other")];
  writeFileSync(file, "");
  linkSync(file, link);
  writeFileSync(other, "");
  const snapshot = { id: "a", stores: [{ path: "memory:" }, { path: folder, fileName: "store" }] };
  const places = ownPlaces([folder], [snapshot as never]);
  const words = places.map(({ what }) => what).filter((what) => what !== "the daemon's log");
  assert.equal(words, ["the daemon's files", "old data of snapshot a"]);
  const answer = (path: string) =>
    assertNotOurs(path, places, { lookUp: pathTarget }).then(
      () => "",
      ({ code, message }) => `${code}: ${message}`,
    );
  assert.match(await answer(link), `DEVICE_BUSY: ${link} holds old data of snapshot a: `);
  assert.is(await answer(other), "");
});

test.run();
