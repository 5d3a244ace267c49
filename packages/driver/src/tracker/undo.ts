import type { Logger } from "pino";

/** Steps that undo what was done; run them in reverse order. */
export type Undo = (() => void | Promise<void>)[];

/**
 * Runs all steps, even if some fail: each releases something of its own.
 * @param onFailure called with each failure
 */
export async function runUndo(
  undo: Undo,
  onFailure: (error: unknown) => void = () => undefined,
): Promise<void> {
  for (const step of undo.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      onFailure(error);
    }
  }
}

/** Releases what was acquired for a device that is not tracked after all. */
export function takeBack(undo: Undo, logger: Logger, device: string): Promise<void> {
  return runUndo(undo, (error) => {
    logger.error({ device, err: error }, "leftovers of a device that is not tracked");
  });
}
