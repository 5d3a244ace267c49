/** Lists the errors of the control API: name, errno, what to do. Runs without a daemon. */
import { ERRORS, socketPath } from "@blksnap/api";

console.log(`the daemon is expected at ${socketPath()}`);
for (const [name, { errno_name, hint }] of Object.entries(ERRORS)) {
  console.log(`${name.padEnd(28)} ${(errno_name ?? "-").padEnd(14)} ${hint}`);
}
