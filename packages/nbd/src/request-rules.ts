/** Checks requests against the protocol before anything is started. */

import { Command, CommandFlag, Limit, WireError } from "./protocol.js";
import type { ServedExport } from "./served-export.js";

/** Flags that a command may have; FUA only counts for writes. */
const FLAGS_OF: Readonly<Record<number, number>> = {
  [Command.READ]: CommandFlag.DF | CommandFlag.FUA,
  [Command.WRITE]: CommandFlag.FUA,
  [Command.FLUSH]: CommandFlag.FUA,
  [Command.TRIM]: CommandFlag.FUA,
  [Command.CACHE]: 0,
  [Command.WRITE_ZEROES]: CommandFlag.FUA | CommandFlag.NO_HOLE,
  [Command.BLOCK_STATUS]: CommandFlag.REQ_ONE,
};

export function writes(type: number): boolean {
  return type === Command.WRITE || type === Command.TRIM || type === Command.WRITE_ZEROES;
}

/** Whether the export supports the command on this connection. */
function knows(served: ServedExport, type: number, contexts: number): boolean {
  if (type === Command.TRIM) return served.readOnly || served.trims;
  if (type === Command.BLOCK_STATUS) return contexts > 0;
  return FLAGS_OF[type] !== undefined;
}

function isBeyond(served: ServedExport, offsetBytes: number, lengthBytes: number): boolean {
  return offsetBytes > served.sizeBytes || lengthBytes > served.sizeBytes - offsetBytes;
}

/**
 * @param contexts how many contexts the connection has selected
 * @returns 0, or the error for the reply
 */
export function refusal(
  served: ServedExport,
  type: number,
  flags: number,
  offsetBytes: number,
  lengthBytes: number,
  contexts: number,
): number {
  const isRelease = type === Command.TRIM && served.trims;
  if (served.readOnly && writes(type) && !isRelease) return WireError.EPERM;
  if (!knows(served, type, contexts)) return WireError.EINVAL;
  if ((flags & ~FLAGS_OF[type]) !== 0) return WireError.EINVAL;
  if (type === Command.FLUSH) {
    return offsetBytes === 0 && lengthBytes === 0 ? 0 : WireError.EINVAL;
  }
  if (isBeyond(served, offsetBytes, lengthBytes)) {
    const isFull = type === Command.WRITE || type === Command.WRITE_ZEROES;
    return isFull ? WireError.ENOSPC : WireError.EINVAL;
  }
  const mask = served.blockBytes - 1;
  if (offsetBytes % served.blockBytes !== 0 || (lengthBytes & mask) !== 0) return WireError.EINVAL;
  if (lengthBytes === 0) return WireError.EINVAL;
  const isPayload = type === Command.READ || type === Command.WRITE;
  if (isPayload && lengthBytes > Limit.PAYLOAD_BYTES) return WireError.EINVAL;
  return 0;
}

/** The wire error for a target's errno. */
export function wireError(errno: number): number {
  switch (errno) {
    case WireError.EPERM:
    case WireError.ENOMEM:
    case WireError.EINVAL:
    case WireError.ENOSPC:
    case WireError.ENOTSUP:
      return errno;
    case 13: // EACCES
    case 30: // EROFS
      return WireError.EPERM;
    case 27: // EFBIG
    case 122: // EDQUOT
      return WireError.ENOSPC;
    default:
      return WireError.EIO;
  }
}
