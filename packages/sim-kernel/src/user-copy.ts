/** Reads and writes of /dev/ublkcN: a server copies the bytes of its requests itself. */
import { Errno } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { Io } from "./medium.js";
import { type Part, UBLK_IO_OP } from "./ublk-parts.js";

const FIRST_BYTE = 0x8000_0000;
const TAG_BYTES = 2 ** 25;
const LATENCY_US = 30;

/** @param partOf the server's request by tag @returns 0, or a negative errno if it has not begun */
export function copyRequest(
  io: Io,
  partOf: (tag: number) => Part | undefined,
  { scheduler, random }: Pick<SimMachine, "scheduler" | "random">,
): number {
  const at = io.offsetBytes - FIRST_BYTE;
  const tag = Math.floor(at / TAG_BYTES);
  const part = partOf(tag);
  const into = io.data;
  if (at < 0 || part?.data === undefined || into === undefined) return -Errno.EINVAL;
  if ((part.op === UBLK_IO_OP.read) !== (io.kind === "write")) return -Errno.EACCES;
  const from = at % TAG_BYTES;
  if (from > part.lengthBytes) return -Errno.EINVAL;
  scheduler.after(1 + random.below(LATENCY_US), () => {
    // Its server may have died, and another one may have the request.
    const isThere = partOf(tag) === part && io.state === "queued";
    io.state = "executed";
    if (!isThere || part.data === undefined) {
      io.done(-Errno.EINVAL);
      return;
    }
    const bytes = part.data.subarray(from, from + io.lengthBytes);
    if (io.kind === "read") into.set(bytes);
    else bytes.set(into.subarray(0, bytes.length));
    io.done(bytes.length);
  });
  return 0;
}
