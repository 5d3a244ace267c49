import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  FAULT_HOOK,
  FAULT_POINTS,
  faultPoint,
  GROWTH_FAULT_POINTS,
  LIVE_FAULT_POINTS,
} from "../dist/fault-points.js";

/** A point may lie in any package that sees the list. */
const PACKAGES = fileURLToPath(new URL("../..", import.meta.url));
const LIST = "fault-points.ts";
const ALL = [...FAULT_POINTS, ...GROWTH_FAULT_POINTS, ...LIVE_FAULT_POINTS];

/** How often each name is used as a fault point: in a call, or passed on to one. */
function uses(): Map<string, number> {
  const found = new Map<string, number>();
  const names = new Set<string>(ALL);
  const folders = readdirSync(PACKAGES).map((name) => join(PACKAGES, name, "src"));
  const files = folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => join(folder, file)),
    );
  for (const file of files) {
    if (!file.endsWith(".ts") || file.endsWith(`/${LIST}`)) continue;
    const text = readFileSync(file, "utf8");
    for (const [, inCall, other] of text.matchAll(/faultPoint\("([^"]*)"\)|"([a-z.-]+)"/g)) {
      const name = inCall ?? other ?? "";
      if (inCall !== undefined) assert.ok(names.has(name), `${file}: ${name} is not on the list`);
      if (names.has(name)) found.set(name, (found.get(name) ?? 0) + 1);
    }
  }
  return found;
}

test("each listed fault point is in exactly one place of the code, and there are no others", () => {
  assert.is(new Set(ALL).size, ALL.length);
  const found = uses();
  for (const name of ALL) {
    assert.is(found.get(name) ?? 0, 1, `${name} is used ${found.get(name) ?? 0} times`);
  }
});

test("without a test's module a fault point does nothing", () => {
  assert.not(FAULT_HOOK in globalThis);
  for (const name of ALL) assert.is(faultPoint(name), undefined);
});

test.run();
