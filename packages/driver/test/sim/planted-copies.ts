/** Faults in requests whose pages cannot be passed through. */
import "./load.js";
import { omitted, type PlantedFault, replace } from "./planted-faults.js";

const { FileIo, Queue } = await import("@blksnap/ublk");
const { RegisteredPages } = await import("../../../ublk/dist/registered-pages.js");

/** Found only with zero copy. */
export const PLANTED_COPIES: readonly PlantedFault[] = [
  {
    what: "a request with pages uses the copied data of its tag's previous request",
    plant: omitted(RegisteredPages.prototype, "begin", (() => true) as never),
  },
  {
    what: "a read is answered before its bytes are copied to its pages",
    plant: () => {
      let isAnswering = false;
      const takeOut = replace(Queue.prototype, "complete", (original) => {
        return function (this: unknown, ...words: never[]): void {
          isAnswering = true;
          original.apply(this, words);
          isAnswering = false;
        };
      });
      const takeOutToo = replace(RegisteredPages.prototype, "isCopied", (original) => {
        return function (this: unknown, ...words: never[]): unknown {
          return !isAnswering && original.apply(this, words);
        };
      });
      return () => {
        takeOutToo();
        takeOut();
      };
    },
  },
  {
    what: "a transfer that is refused for its pages fails",
    plant: omitted(Queue.prototype, "copyRequest", (() => true) as never, false),
  },
  {
    what: "a transfer is refused for its pages and tried again before its copy is there",
    seed: 83,
    plant: () =>
      replace(Queue.prototype, "copyRequest", (original) => {
        return function (this: unknown, ...[tag, then]: never[]): unknown {
          const early = { onCopied: () => undefined } as never;
          const isCopied = original.apply(this, [tag, early]);
          if (isCopied === true) (then as InstanceType<typeof FileIo>).onCopied(tag, 0);
          return isCopied;
        };
      }),
  },
];
