/** Supervised daemons: the active one, and the one that continues after a death. */
import { until } from "./wait.mjs";

const SUCCESSION_LIMIT_MS = 300_000;

/** The daemon that serves, or undefined. */
export async function servingPid(t) {
  const status = await t.client.status().catch(() => undefined);
  return status?.daemon.pid;
}

/** Waits until a daemon other than this process serves, and returns its pid. */
export function successor(t, pid) {
  const next = async () => {
    const other = await servingPid(t);
    return other === pid ? undefined : other;
  };
  return until("the next daemon serves", next, SUCCESSION_LIMIT_MS);
}

/** Kills the active daemon; returns the pid of the one that continues. */
export async function killServing(t) {
  const pid = await until("a daemon serves", () => servingPid(t), SUCCESSION_LIMIT_MS);
  process.kill(pid, "SIGKILL");
  return successor(t, pid);
}

/** What the daemons that continued after a death wrote in their log about how long it took, in ms. */
export function recoveryTimesMs(daemon) {
  return [...daemon.log().matchAll(/"recoveryMs":(\d+)/g)].map((match) => Number(match[1]));
}
