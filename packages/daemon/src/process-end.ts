import { endProcess } from "@blksnap/uring";
import { endLog } from "./log.js";

/**
 * Ends the process with a status and leaves its devices to the next one, as a kill would: all threads end wherever
 * they are. In an orderly end of a reactor's thread the kernel would still pass requests to it for a while. Their
 * server would then be gone, and Linux 6.12 waits for them indefinitely before another server may continue.
 */
export function endAtOnce(status: number): never {
  endLog();
  return endProcess(status);
}
