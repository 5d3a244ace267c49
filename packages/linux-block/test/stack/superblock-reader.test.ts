import { superblockReader } from "@blksnap/linux-block";
import { readInHelper } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const readDevice = superblockReader(readInHelper);
const codeOf = (error: NodeJS.ErrnoException): string | undefined => error.code;

test("a device is read by its name if it has this number", async () => {
  const zero = { major: 1, minor: 5 };
  assert.equal(await readDevice("/dev/zero", zero, 1024, 3072), Buffer.alloc(3072));
  const other = { major: 1, minor: 6 };
  assert.is(await readDevice("/dev/zero", other, 0, 512).catch(codeOf), "ENODEV");
  assert.is(await readDevice("/dev/no-such-device", zero, 0, 512).catch(codeOf), "ENOENT");
});

test.run();
