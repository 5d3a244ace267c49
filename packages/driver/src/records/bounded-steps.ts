/**
 * The outcome of work that proceeds in steps, or the error of `onTimeout` if a step takes longer than `timeoutMs`. From
 * then on `onStep` throws, so that the work ends at its next step.
 */
export async function boundedSteps<Value>(
  work: (onStep: () => void) => Promise<Value>,
  timeoutMs: number,
  onTimeout: () => Error,
): Promise<Value> {
  let error: Error | undefined;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      error = onTimeout();
      reject(error);
    }, timeoutMs);
  });
  const onStep = (): void => {
    if (error !== undefined) throw error;
    timer?.refresh();
  };
  return Promise.race([work(onStep), late]).finally(() => clearTimeout(timer));
}
