/**
 * Runs `work` for all items, `limit` at a time. After a failure it starts no more, and waits for the rest.
 * @param onFailure called at once with the first failure
 */
export async function inFlight<Item>(
  items: Iterable<Item> | AsyncIterable<Item>,
  limit: number,
  work: (item: Item) => Promise<void>,
  onFailure: (error: unknown) => void = () => undefined,
): Promise<void> {
  const iterator =
    Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  const failures: unknown[] = [];
  async function lane(): Promise<void> {
    while (failures.length === 0) {
      try {
        const { done, value } = await iterator.next();
        if (done === true) return;
        await work(value);
      } catch (error) {
        if (failures.push(error) === 1) onFailure(error);
      }
    }
  }
  await Promise.all(Array.from({ length: limit }, lane));
  if (failures.length > 0) throw failures[0];
}

/** Makes `limit` items at a time, and passes the results on one by one, in order. */
export async function inOrder<Item, Made>(
  items: Iterable<Item>,
  limit: number,
  make: (item: Item) => Promise<Made>,
  take: (made: Made) => Promise<void>,
): Promise<void> {
  const queue: Promise<Made>[] = [];
  const iterator = items[Symbol.iterator]();
  const fill = (): void => {
    while (queue.length < limit) {
      const { done, value } = iterator.next();
      if (done === true) return;
      const made = make(value);
      // It is awaited later, and may fail before.
      made.catch(() => undefined);
      queue.push(made);
    }
  };
  try {
    for (fill(); queue.length > 0; fill()) {
      // A result leaves its slot when it has been handled: at most `limit` are in memory.
      await take(await queue[0]!);
      queue.splice(0, 1);
    }
  } finally {
    await Promise.allSettled(queue);
  }
}
