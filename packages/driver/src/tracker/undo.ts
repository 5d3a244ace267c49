import type { Logger } from "pino";

/** Steps that take back what has been done, to be run last first. */
export type Undo = (() => void | Promise<void>)[];

/**
 * Runs all steps, also those before one that fails: each gives back something of its own.
 * @param onFailure told of each step that fails
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

/** Gives back what was taken for a device that is not tracked after all. */
export function takeBack(undo: Undo, logger: Logger, device: string): Promise<void> {
  return runUndo(undo, (error) => {
    logger.error({ device, err: error }, "leftovers of a device that is not tracked");
  });
}
