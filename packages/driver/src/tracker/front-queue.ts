/** How a tracker's reactor is told to serve its front. */

import type { SleepingArea } from "@blksnap/data-plane";
import { doubtOf, type FaultPoint, faultPoint } from "@blksnap/data-plane";
import type { QueueStart, ServeOptions } from "@blksnap/ublk";
import type { DriverContext } from "../context.js";
import { udevMarks } from "../system/device-names.js";
import type { TrackerParts } from "./tracker-options.js";

export function frontQueue(
  context: DriverContext,
  parts: TrackerParts,
  started: FaultPoint,
  area?: SleepingArea,
): ServeOptions {
  const { reactors } = context;
  const { id: tracker, backing, geometry, cbtFile, reactor } = parts;
  return {
    startQueue: async (queue: QueueStart) => {
      await reactors.request(reactor, {
        type: "attach",
        tracker,
        queue,
        originalFd: backing.fd,
        isBlock: backing.kind === "block",
        geometry,
        cbt: { fd: cbtFile.fd, lengthBytes: cbtFile.lengthBytes },
        area,
        journal: parts.journal?.setup,
      });
      faultPoint(started);
    },
    queueEnded: () => reactors.request(reactor, { type: "awaitFrontEnd", tracker }),
    doubtOf,
    onNumberTaken: (id) => udevMarks.add("fronts", `ublkb${id}`),
    onNumberFreed: (id) => udevMarks.remove(`ublkb${id}`),
  };
}
