/** Progress on a terminal: that a command continues, how far it is, and for how long. */
const INTERVAL_MS = 1000;
const CLEAR_LINE = "\r\x1b[K";
const COLUMNS_DEFAULT = 80;

export interface WaitingOptions {
  readonly write: (text: string) => void;
  /** Width of the terminal: a longer line could not be cleared. */
  readonly columns?: number | undefined;
  readonly intervalMs?: number;
  /** The daemon finishes the work even if this process is interrupted. */
  readonly isFinished?: boolean;
}

export interface Waiting {
  /** Sets the text to show from now on. */
  readonly note: (text: string) => void;
  /** Clears the line until the next one, before anything else is written to the terminal. */
  readonly clear: () => void;
  /** Ends it, and clears the line. */
  readonly end: () => void;
}

/** Shows nothing for work that ends within a second. */
export function showWaiting(
  verb: string,
  {
    write,
    columns = COLUMNS_DEFAULT,
    intervalMs = INTERVAL_MS,
    isFinished = false,
  }: WaitingOptions,
): Waiting {
  let seconds = 0;
  let isThere = false;
  let progress = `${verb}: under way for`;
  const interrupted = isFinished ? "ends only the wait" : "cancels";
  const timer = setInterval(() => {
    seconds++;
    const line = `blksnapctl: ${progress} ${seconds} s; Ctrl-C ${interrupted}`;
    write(CLEAR_LINE + line.slice(0, Math.max(1, columns - 1)));
    isThere = true;
  }, intervalMs);
  timer.unref();
  const clear = (): void => {
    if (isThere) write(CLEAR_LINE);
    isThere = false;
  };
  return {
    clear,
    note: (text) => {
      progress = `${text},`;
    },
    end: () => {
      clearInterval(timer);
      clear();
    },
  };
}
