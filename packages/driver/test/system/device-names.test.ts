import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { MARK_KINDS, MARKS_DIRECTORY } from "../../dist/system/device-names.js";

test("the rules read the folder of the marks, and hide the content of images", () => {
  const rules = readFileSync(
    new URL("../../../daemon/udev/59-blksnap.rules", import.meta.url),
    "utf8",
  );
  for (const kind of MARK_KINDS) {
    assert.ok(rules.includes(`"${MARKS_DIRECTORY}/${kind}/$env{BLKSNAP_DISK}"`), kind);
  }
  const image = rules.split("\n").find((line) => line.includes("/images/"));
  assert.match(image ?? "", /UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG\}="1"/);
  const clone = rules.split("\n").find((line) => line.includes("blksnap-*"));
  assert.match(clone ?? "", /DM_UDEV_DISABLE_DISK_RULES_FLAG\}="1"/);
  // Every line is a comment, empty, or keys with operators, separated by commas.
  const key = /^[A-Z]+(\{[A-Za-z_]+\})?(==|!=|\+=|=)"[^"]*"$/;
  const lines = rules.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  for (const part of lines.flatMap((line) => line.split(", "))) assert.match(part, key);
});

test.run();
