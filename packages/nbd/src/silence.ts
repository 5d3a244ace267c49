/**
 * Limits how long the other side of a socket may be silent, in time in which this process runs: one that was stopped,
 * or whose machine was suspended or paused, has read nothing meanwhile. So it is counted in ticks, and a pause counts as
 * one of them at most.
 */
import type { Socket } from "node:net";

const TICKS = 12;

/** Each read or write restarts setTimeout(). */
export type LimitedSocket = Pick<Socket, "bytesRead" | "bytesWritten" | "setTimeout"> & {
  on(event: "timeout", listener: () => void): unknown;
};

/**
 * @param isOwed whether the other side has to say something now
 * @param onSilent called when it has owed that for so long
 */
export function limitSilence(
  socket: LimitedSocket,
  timeoutMs: number,
  isOwed: () => boolean,
  onSilent: () => void,
): void {
  const tickMs = Math.ceil(timeoutMs / TICKS);
  let ticks = 0;
  let bytes = 0;
  socket.setTimeout(tickMs);
  socket.on("timeout", () => {
    const isSame = bytes === socket.bytesRead + socket.bytesWritten;
    bytes = socket.bytesRead + socket.bytesWritten;
    ticks = isOwed() ? (isSame ? ticks : 0) + 1 : 0;
    // Without a debt the next request sets the timer again.
    if (ticks === 0) return;
    if (ticks < TICKS) socket.setTimeout(tickMs);
    else onSilent();
  });
}
