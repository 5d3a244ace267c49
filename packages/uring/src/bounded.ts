/**
 * The promise's result, or the error of `onTimeout` if it is still pending after `timeoutMs`. The work continues; its
 * result is then ignored.
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
