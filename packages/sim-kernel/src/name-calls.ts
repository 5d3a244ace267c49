/** System calls on paths, which hang where the medium of what is there does. */
import type { SimMachine } from "./machine.js";

/** Makes one a moment later. One that hangs longer than its process lives is not made. */
export function callOn<Value>(
  machine: SimMachine,
  path: string,
  call: string,
  action: () => Value,
): Promise<Value> {
  const medium = machine.tree.mediumAt(path);
  if (medium === undefined) return machine.later(action);
  const { process } = machine;
  return new Promise((resolve, reject) => {
    const make = (): void => {
      if (process !== machine.runningProcess || !process.isAlive) return;
      try {
        resolve(action());
      } catch (error) {
        reject(error);
      }
    };
    void machine.later(() => medium.call(call, make));
  });
}
