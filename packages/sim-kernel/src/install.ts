/**
 * Puts the machine's system calls in place of the platform's: those of the uring addon, `node:fs`,
 * `node:child_process`, timers, clocks and random numbers. Where no machine runs, and for paths and
 * descriptors that are not simulated, the platform's are called.
 */
// What the simulation itself needs from the platform is kept before it is replaced.
import "./real.js";
import { native } from "@blksnap/uring/testing";
import { Killed } from "./errno.js";
import { installFiles } from "./install-files.js";
import { installPrograms } from "./install-programs.js";
import { installRandom, installTime } from "./install-time.js";
import type { SimMachine } from "./machine.js";
import { SimNative } from "./native.js";

let active: SimMachine | undefined;
const realNative = { ...native };

// At once: modules imported later may keep the functions that they find.
installFiles(activeMachine);
installPrograms(activeMachine);
installTime(activeMachine);
installRandom(activeMachine);

/** The machine that the system calls belong to. */
function activeMachine(): SimMachine | undefined {
  return active;
}

/** @returns function that ends it */
export function activate(machine: SimMachine): () => void {
  if (active !== undefined) throw new Error("one simulated machine at a time");
  active = machine;
  Object.assign(native, guarded(machine));
  process.on("unhandledRejection", onRejection);
  return () => {
    active = undefined;
    process.off("unhandledRejection", onRejection);
    Object.assign(native, realNative);
  };
}

/** Calls of a life that has ended do nothing. */
function guarded(machine: SimMachine): object {
  const table = new SimNative(machine).table() as unknown as Record<string, unknown>;
  for (const [name, call] of Object.entries(table)) {
    if (name === "Watcher" || name === "bytesOf") continue;
    table[name] = (...words: unknown[]): unknown => {
      if (machine.isDying) throw new Killed();
      return (call as (...words: unknown[]) => unknown)(...words);
    };
  }
  return table;
}

/** Promises of a killed life may fail, and nothing is left to handle that. */
function onRejection(error: unknown): void {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof Killed) return;
  }
  if (active?.isDying) return;
  throw error;
}
