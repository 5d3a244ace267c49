/**
 * The promise's outcome, or the error of `onTimeout` when it has none after `timeoutMs`. What the
 * promise stands for goes on; how it ends is then nobody's business any more.
 */
export function bounded<Value>(
  promise: Promise<Value>,
  timeoutMs: number,
  onTimeout: () => Error,
): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(onTimeout()), timeoutMs);
  });
  return Promise.race([promise, timeout]).finally(() => clearTimeout(timer));
}
