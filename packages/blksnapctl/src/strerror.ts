/** The C library's text for an errno, as the kernel module's tool prints it. */
import { getSystemErrorMap } from "node:util";

/** Texts that differ from Node's by more than the first letter's case. */
const TEXTS: Readonly<Record<number, string>> = {
  5: "Input/output error",
  12: "Cannot allocate memory",
  14: "Bad address",
  16: "Device or resource busy",
  28: "No space left on device",
  30: "Read-only file system",
  61: "No data available",
};

export function strerror(errno: number): string {
  const known = TEXTS[errno] ?? getSystemErrorMap().get(-errno)?.[1];
  return known === undefined ? `Unknown error ${errno}` : known[0]!.toUpperCase() + known.slice(1);
}
