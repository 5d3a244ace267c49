/** System calls on paths, which hang if the medium behind the path does. */
import type { SimMachine } from "./machine.js";

/** Makes a call a moment later. A call that hangs until its process has died is not made. */
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
