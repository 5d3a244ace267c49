/** Waits until the condition holds. The limit only ends a test that hangs; it is no measure of speed. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  limitMs = 200_000,
): Promise<void> {
  const deadlineMs = performance.now() + limitMs;
  while (!(await holds())) {
    if (performance.now() > deadlineMs) throw new Error(`never happened: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}
