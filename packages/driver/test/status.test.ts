/** Status of a device whose snapshots follow each other. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { snapshotInfo } from "../dist/status.js";

test("the loss of an earlier snapshot is not an error of the one that is being taken", () => {
  const codeOf = (lostArea: string | null, area: string | undefined): number => {
    const loss = { errorCode: -5, area: lostArea };
    const tracker = { id: 1, device: "/dev/a", front: { path: "/dev/ublkb1" }, loss };
    const member = { tracker, area: area === undefined ? undefined : { id: area } };
    const snapshot = { id: "s", members: new Map([[1, member]]) };
    const exports = { imageUri: () => null };
    return snapshotInfo(tracker as never, snapshot as never, exports as never).error_code;
  };
  assert.is(codeOf("earlier", "present"), 0);
  assert.is(codeOf("present", "present"), -5);
  // As older daemons recorded it: the present area.
  assert.is(codeOf(null, "present"), -5);
  assert.is(codeOf("earlier", undefined), -5);
});

test.run();
