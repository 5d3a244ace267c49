/** A stream's target that is slow. */
import { closeSync, openSync, writeSync } from "node:fs";

/** A stream into a file that stops behind `limitBytes` until it is resumed: to the end, or to where `resume` says. */
export function stoppingSink(path, limitBytes) {
  const file = openSync(path, "w");
  let limit = limitBytes;
  let wake = () => undefined;
  let bytes = 0;
  const write = async (data) => {
    while (bytes > limit) {
      await new Promise((resolve) => {
        wake = resolve;
      });
    }
    bytes += writeSync(file, data);
  };
  const resume = (nextBytes = Number.POSITIVE_INFINITY) => {
    limit = nextBytes;
    wake();
  };
  return { sink: { write, end: async () => closeSync(file) }, resume };
}
