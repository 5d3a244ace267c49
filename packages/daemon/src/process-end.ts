import { endProcess } from "@blksnap/uring";
import { endLog } from "./log.js";

/**
 * Ends the process with a status and leaves its devices to the next one, as a kill would: all threads end
 * wherever they are. The orderly end of a reactor's thread takes a while in which the kernel still hands it
 * requests; those are then with a server that is gone, and Linux 6.12 waits for them for ever before it
 * lets another one continue.
 */
export function endAtOnce(status: number): never {
  endLog();
  return endProcess(status);
}
