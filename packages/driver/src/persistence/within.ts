/** Ends a wait for a medium that may never answer; the work itself goes on. @throws Error after the time */
export async function within<Value>(work: Promise<Value>, timeoutMs: number): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the medium does not answer")), timeoutMs);
  });
  // What it ends with after its time is nobody's business any more.
  work.catch(() => undefined);
  return await Promise.race([work, timeout]).finally(() => clearTimeout(timer));
}
