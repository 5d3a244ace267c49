import { test } from "uvu";
import * as assert from "uvu/assert";
import { describeInUse } from "../dist/in-use.js";

test("devices in use are named with what they are and who uses them", () => {
  const device = "/dev/vdb";
  const text = describeInUse([
    { device, path: "/dev/ublkb0", kind: "front", users: ["mounted at /srv"] },
    { device, path: "/dev/ublkb1", kind: "image", users: [] },
  ]);
  assert.is(text, "/dev/ublkb0 (/dev/vdb): mounted at /srv; /dev/ublkb1 (image of /dev/vdb)");
});

test.run();
