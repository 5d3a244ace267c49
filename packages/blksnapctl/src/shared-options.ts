/** Options that verbs of several groups have. */
import type { OptionSpec } from "./verb.js";

export const device: OptionSpec = {
  short: "d",
  describe: "original or front",
  value: "DEVICE",
  required: true,
};
export const bytes: OptionSpec = { short: "b", describe: "show exact sizes in bytes" };
