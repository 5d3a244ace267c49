/** For the person at the terminal: that a command goes on, and for how long by now. */
const INTERVAL_MS = 1000;
const CLEAR_LINE = "\r\x1b[K";

/**
 * Shows nothing of what is done within a second.
 * @returns ends it, and clears the line
 */
export function showWaiting(
  verb: string,
  write: (text: string) => void,
  intervalMs: number = INTERVAL_MS,
): () => void {
  let seconds = 0;
  const timer = setInterval(() => {
    seconds++;
    write(`${CLEAR_LINE}blksnapctl: ${verb}: under way for ${seconds} s; Ctrl-C gives up`);
  }, intervalMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    if (seconds > 0) write(CLEAR_LINE);
  };
}
