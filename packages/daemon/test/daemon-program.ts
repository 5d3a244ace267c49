/** blksnapd for tests that start it: the bundle, which takes a third of the processor time, if it is sure to be new. */
import { join } from "node:path";

const isBuilt = process.env["BLKSNAP_TESTS_BUILT"] !== undefined;

export const program: string = join(
  import.meta.dirname,
  isBuilt ? "../bin/blksnapd.mjs" : "user-daemon.js",
);
