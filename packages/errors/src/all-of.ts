/**
 * Waits for all, and throws the first failure, in the order of the list. Promise.all() throws while the others continue:
 * what they use could be closed under them, and a retry could meet them.
 */
export async function allOf<Values extends readonly unknown[]>(
  work: readonly [...{ [Index in keyof Values]: Promise<Values[Index]> }],
): Promise<Values> {
  for (const answer of await Promise.allSettled(work)) {
    if (answer.status === "rejected") throw answer.reason;
  }
  return (await Promise.all(work)) as Values;
}
