/** Makes a tracker's reactor serve its front. */

import type { AreaId, ReactorPool, SleepingArea } from "@blksnap/data-plane";
import { doubtOf, type FaultPoint, faultPoint } from "@blksnap/data-plane";
import { keyOfNumber } from "@blksnap/linux-block";
import { type BackingFile, offersZeroCopy, type UblkControl } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import type { Serving } from "../frontend/frontend.js";
import { frontName } from "../nbd-exports.js";
import type { TrackerParts } from "./tracker-options.js";
import type { Undo } from "./undo.js";

export function frontQueue(
  context: DriverContext,
  parts: TrackerParts,
  started: FaultPoint,
  area?: SleepingArea,
  kept: readonly AreaId[] = [],
): Serving {
  const { reactors } = context;
  const { id: tracker, backing, geometry, cbtFile, reactor } = parts;
  return {
    startQueue: async (queue) => {
      await reactors.request(reactor, {
        type: "attach",
        tracker,
        queue,
        originalFd: backing.fd,
        isBlock: backing.kind === "block",
        geometry,
        cbt: { fd: cbtFile.fd, lengthBytes: cbtFile.lengthBytes },
        area,
        lostAreas: kept.filter((id) => id !== area?.id),
        journal: parts.journal?.setup,
        // When the node leads elsewhere again, its users write past the front.
        forgetsDiscards: parts.splice !== undefined,
      });
      faultPoint(started);
    },
    queueEnded: () => reactors.request(reactor, { type: "awaitFrontEnd", tracker }),
    doubtOf,
    role: "front",
    // Under a node that is in use, programs must not find it by its content, as with an image.
    isHidden: parts.splice !== undefined,
    original: originalNumber(backing),
    exportName: frontName(backing.path),
    connections: () =>
      reactors.request<number>(reactor, { type: "countConnections", tracker, area: null }),
  };
}

/** packages/daemon/libexec/boot-front finds the front of a device by it. Empty for a file. */
function originalNumber({ kind, deviceNumber }: BackingFile): string {
  return kind === "block" ? keyOfNumber(deviceNumber) : "";
}

/** Without places for its requests' pages, a front would copy each page in a slow way. */
export function mayPassPages(
  { zeroCopy, reactors, frontDepth }: DriverContext,
  reactor: number,
): boolean {
  return zeroCopy === "auto" && reactors.hasRoomForPages(reactor, frontDepth);
}

/**
 * Makes the reactors compile the data path of fronts and images when they have time; called after a recovery, whose
 * users wait for it.
 * @param ublk undefined if fronts are NBD exports, whose code partly differs: then nothing is done
 */
export function warmUp(
  reactors: Pick<ReactorPool, "warmUp">,
  { zeroCopy }: Pick<DriverContext, "zeroCopy">,
  ublk: Pick<UblkControl, "features"> | undefined,
): void {
  if (ublk !== undefined) reactors.warmUp(zeroCopy === "auto" && offersZeroCopy(ublk.features));
}

/** The reactor that is to serve a tracker. */
export function assignReactor(context: DriverContext, undo: Undo): number {
  const reactor = context.reactors.assign();
  undo.push(() => context.reactors.release(reactor));
  return reactor;
}
