import { open } from "node:fs/promises";
import type { BootMark } from "./boot-mark.js";
import type { PersistedIdentity } from "./continuity.js";
import { fileReader } from "./device-bytes.js";
import { readDeviceIdentity } from "./device-identity.js";
import { digestContents } from "./superblocks.js";
import { readWriteCounters } from "./write-counters.js";

/** An original that is open. */
export interface OpenOriginal {
  readonly fd: number;
  readonly params: { readonly capacityBytes: number; readonly logicalBlockBytes: number };
}

/**
 * All facts that identify an original, and show whether it was written to. Read them while it is open exclusively and
 * blksnap does not write. @throws the error of open(2) or read(2)
 * @param boot the present one
 */
export async function readFacts(backing: OpenOriginal, boot: BootMark): Promise<PersistedIdentity> {
  const { capacityBytes, logicalBlockBytes } = backing.params;
  // The name of the attach may lead elsewhere by now.
  const path = `/proc/self/fd/${backing.fd}`;
  const handle = await open(path, "r");
  try {
    const content = await digestContents(fileReader(handle), capacityBytes);
    const identity = await readDeviceIdentity(path, content);
    const witness = await readWriteCounters(path);
    return { capacityBytes, logicalBlockBytes, identity, content, witness, boot };
  } finally {
    await handle.close();
  }
}
