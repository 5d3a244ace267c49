/** Finds configured devices that are the same, or lie on each other, on this host now. */
import { knownStackOf, lookUpPath, overlapOf, type TopologyProbe } from "@blksnap/linux-block";
import type { ConfiguredDevice } from "./config.js";
import { type ConfigProblem, placeFrom } from "./config-problem.js";

interface Place {
  readonly configured: ConfiguredDevice;
  readonly identity: string;
}

/** The daemon starts all the same: the attach of the second one is refused, and reported as missing. */
function problemOf({ from }: ConfiguredDevice, what: string): ConfigProblem {
  const hint = "Keep one of them: the daemon refuses the other when it starts";
  return { ...placeFrom(from), severity: "error", what, hint };
}

/** Skips absent devices, because it is unknown what they will be. */
export async function deviceConflicts(
  devices: readonly ConfiguredDevice[],
  probe: TopologyProbe = {},
): Promise<ConfigProblem[]> {
  const problems: ConfigProblem[] = [];
  const places: Place[] = [];
  for (const configured of devices) {
    const found = await (probe.lookUp ?? lookUpPath)(configured.device).catch(() => undefined);
    if (found === undefined) continue;
    const place = { configured, identity: found.identity };
    for (const earlier of places) {
      const what = await conflict(place, earlier, probe);
      if (what !== undefined) problems.push(problemOf(configured, what));
    }
    places.push(place);
  }
  return problems;
}

async function conflict(
  one: Place,
  other: Place,
  probe: TopologyProbe,
): Promise<string | undefined> {
  const { device } = one.configured;
  const { device: its, from } = other.configured;
  if (device === its) return undefined;
  if (one.identity === other.identity) return `${device} and ${its} (${from}) are the same`;
  const stack = await knownStackOf(device, probe);
  if (stack.has(other.identity)) return `${device} lies on ${its} (${from})`;
  const below = await knownStackOf(its, probe);
  if (below.has(one.identity)) return `${its} (${from}) lies on ${device}`;
  const overlap = overlapOf(stack, below);
  if (overlap === undefined) return undefined;
  return `${device} and ${its} (${from}) lie on the same bytes of ${overlap.one.name}`;
}
