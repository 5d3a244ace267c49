/** Requests that a read-only export accepts besides reads: trims, if its readers may release what they have read. */
import type { DeviceParams, Target } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Command, TransmissionFlag } from "../dist/protocol.js";
import { refusal } from "../dist/request-rules.js";
import { ServedExport } from "../dist/served-export.js";
import { PLAIN_PARAMS } from "./support.js";

const EPERM = 1;
const params: DeviceParams = {
  ...PLAIN_PARAMS,
  readOnly: true,
  discardMaxBytes: 2 ** 20,
  discardGranularityBytes: 512,
};
const target: Target = { queueIo: () => undefined, close: () => undefined };

for (const releases of [false, true]) {
  test(`a read-only export ${releases ? "takes trims alone" : "takes no trims"}`, () => {
    const served = new ServedExport({ name: "", releases }, params, target);
    const asked = (type: number) => refusal(served, type, 0, 0, 4096, 0);
    assert.is(served.can(TransmissionFlag.READ_ONLY), true);
    assert.is(served.trims, releases);
    assert.is(asked(Command.READ), 0);
    assert.is(asked(Command.TRIM), releases ? 0 : EPERM);
    assert.is(asked(Command.WRITE), EPERM);
    assert.is(asked(Command.WRITE_ZEROES), EPERM);
  });
}

test.run();
