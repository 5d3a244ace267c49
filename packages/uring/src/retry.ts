export interface RetryOptions {
  /** Whether the failure may be temporary. */
  readonly isPassing: (error: unknown) => boolean;
  /** From performance.now(): a failure after it is the last. */
  readonly deadlineMs: number;
  readonly intervalMs: number;
}

/** The result of the first successful attempt. @throws the error of the last one */
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
