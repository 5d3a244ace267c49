/**
 * Runs `work` for all items, `limit` at a time. After a failure none begins, and it waits for the rest.
 * @param onFailure is told of the first failure at once
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

/** Has `limit` items made at a time, and takes what they became one by one, in their order. */
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
      // It is waited for later, and may fail before.
      made.catch(() => undefined);
      queue.push(made);
    }
  };
  try {
    for (fill(); queue.length > 0; fill()) {
      // One that is taken leaves its place when that is done: no more than `limit` are in memory.
      await take(await queue[0]!);
      queue.splice(0, 1);
    }
  } finally {
    await Promise.allSettled(queue);
  }
}
