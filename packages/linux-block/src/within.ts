/** The result of work that continues anyway; undefined if it has not ended in time. */
export async function within<Value>(
  work: Promise<Value>,
  timeoutMs: number,
): Promise<Value | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), Math.max(0, timeoutMs));
  });
  return await Promise.race([work, late]).finally(() => clearTimeout(timer));
}
