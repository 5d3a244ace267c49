/** Steps that take back what has been done, to be run last first. */
export type Undo = (() => void | Promise<void>)[];

export async function runUndo(undo: Undo): Promise<void> {
  for (const step of undo.reverse()) await step();
}
