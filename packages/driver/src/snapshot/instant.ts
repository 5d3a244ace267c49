/**
 * The instant of a take: writes are held on all reactors, then all switch.
 *
 * ```
 *   rehearse ─▶ … ─▶ hold ─▶ every reactor has answered ─▶ (sync) ─▶ switch ─▶ every reactor has answered
 *                     └──────────────── writers stand ────────────────┘
 * ```
 *
 * Messages between threads are what takes the time, so there is one for each reactor, not for each device. And code is
 * compiled when it first runs, so everything runs once before, without devices.
 */
import { ControlError } from "@blksnap/api";
import type { AreaId, SwitchReply } from "@blksnap/data-plane";
import { allOf } from "@blksnap/errors";
import type { DriverContext } from "../context.js";
import type { Member } from "./member.js";

/** The members on one reactor. */
export interface Part {
  readonly reactor: number;
  readonly trackers: readonly number[];
  readonly areas: readonly { readonly tracker: number; readonly area: AreaId }[];
}

type Needed = Pick<DriverContext, "reactors" | "holdTimeoutMs">;

/** @param members each with an area */
export function partsOf(members: readonly Member[]): Part[] {
  const byReactor = new Map<number, { reactor: number; trackers: number[]; areas: Areas }>();
  for (const { tracker, area } of members) {
    if (area === undefined) throw new Error(`${tracker.device} has no diff area`);
    const { id, reactor } = tracker;
    const part = byReactor.get(reactor) ?? { reactor, trackers: [], areas: [] };
    byReactor.set(reactor, part);
    part.trackers.push(id);
    part.areas.push({ tracker: id, area: area.id });
  }
  return [...byReactor.values()];
}

type Areas = Part["areas"][number][];

/** Runs what holdAndSwitch() runs, while no writer stands. @throws as it */
export async function rehearse(context: Needed, parts: readonly Part[]): Promise<void> {
  const empty = parts.map(({ reactor }) => ({ reactor, trackers: [], areas: [] }));
  await holdAndSwitch(context, empty, async () => undefined);
}

/**
 * @param whileHeld runs while no write is in flight; the caller translates its error
 * @returns how long writers stood at most, in microseconds
 * @throws ControlError TAKE_FAILED; as `whileHeld`. Then writers continue, and some devices may have switched
 */
export async function holdAndSwitch(
  context: Needed,
  parts: readonly Part[],
  whileHeld: () => Promise<void>,
): Promise<number> {
  const { reactors, holdTimeoutMs: deadlineMs } = context;
  // Everything else is there before the first writer stands.
  const requests = parts.map(({ reactor, trackers, areas }) => ({
    reactor,
    hold: { type: "hold", trackers, deadlineMs } as const,
    switch: { type: "switch", areas } as const,
  }));
  try {
    await allOf(requests.map(({ reactor, hold }) => reactors.request(reactor, hold, deadlineMs)));
  } catch (cause) {
    await releaseAll(context, parts);
    const what = "writes in flight did not end in time";
    throw new ControlError("TAKE_FAILED", what, { cause, errnoName: "ETIMEDOUT" });
  }
  try {
    await whileHeld();
  } catch (error) {
    await releaseAll(context, parts);
    throw error;
  }
  try {
    const replies = await allOf(
      requests.map((of) => reactors.request<SwitchReply>(of.reactor, of.switch)),
    );
    return Math.max(0, ...replies.map(({ stallUs }) => stallUs));
  } catch (error) {
    await releaseAll(context, parts);
    throw new ControlError("TAKE_FAILED", `a device did not switch: ${error}`);
  }
}

async function releaseAll({ reactors }: Needed, parts: readonly Part[]): Promise<void> {
  await Promise.allSettled(
    parts.map(({ reactor, trackers }) => reactors.request(reactor, { type: "release", trackers })),
  );
}
