export interface RetryOptions {
  /** Whether the failure may pass by itself. */
  readonly isPassing: (error: unknown) => boolean;
  /** As performance.now() has it: a failure after it is the last. */
  readonly deadlineMs: number;
  readonly intervalMs: number;
}

/** The outcome of the first attempt that succeeds. @throws what the last one did */
export async function retry<Value>(
  attempt: () => Promise<Value>,
  { isPassing, deadlineMs, intervalMs }: RetryOptions,
): Promise<Value> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isPassing(error) || performance.now() > deadlineMs) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
