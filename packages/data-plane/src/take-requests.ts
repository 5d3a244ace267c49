/**
 * A take's requests to a reactor, each for all its devices in the snapshot: a message costs far more than a device, and
 * writers stand meanwhile.
 */
import type { HoldRequest, ReleaseRequest, SwitchReply, SwitchRequest } from "./messages.js";
import type { TrackedDevice } from "./tracked-device.js";

/** The reactor's devices. */
export interface TakenDevices {
  /** @throws Error if there is none */
  readonly deviceOf: (tracker: number) => Pick<TrackedDevice, "hold" | "switchAndRelease">;
  readonly find: (tracker: number) => Pick<TrackedDevice, "release"> | undefined;
}

/** Carries a request out; `done` may be called later. If it throws, some devices may have done their part. */
export function carryOutTake(
  devices: TakenDevices,
  request: HoldRequest | SwitchRequest | ReleaseRequest,
  done: (reply?: SwitchReply) => void,
): void {
  switch (request.type) {
    case "hold":
      holdAll(devices, request, done);
      return;
    case "switch":
      done(switchAll(devices, request));
      return;
    case "release":
      releaseAll(devices, request);
      done();
  }
}

function holdAll(
  { deviceOf }: TakenDevices,
  { trackers, deadlineMs }: HoldRequest,
  done: () => void,
): void {
  // One more than devices, so that those that drain at once do not answer for the others.
  let left = trackers.length + 1;
  const drained = (): void => {
    left--;
    if (left === 0) done();
  };
  for (const tracker of trackers) deviceOf(tracker).hold(deadlineMs, drained);
  drained();
}

function switchAll({ deviceOf }: TakenDevices, { areas }: SwitchRequest): SwitchReply {
  let stallUs = 0;
  for (const { tracker, area } of areas) {
    stallUs = Math.max(stallUs, deviceOf(tracker).switchAndRelease(area));
  }
  return { stallUs };
}

/** What one device throws keeps no other one held. */
function releaseAll({ find }: TakenDevices, { trackers }: ReleaseRequest): void {
  const failures: unknown[] = [];
  for (const tracker of trackers) {
    try {
      find(tracker)?.release();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
