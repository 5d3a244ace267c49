/** Passes the requests of a tracked device's queues to its engine. */
import type { TrackerEngine } from "@blksnap/engine";
import type { RequestQueue, Target } from "@blksnap/ublk";
import { copyRequest } from "./copy-request.js";
import type { WriteGate } from "./write-gate.js";

const EIO = 5;

export function frontTarget(queue: RequestQueue, engine: TrackerEngine): Target {
  const { front } = engine;
  return {
    queueIo: (tag) => {
      copyRequest(queue, front, tag, tag);
      engine.submitFront(tag);
    },
    // The image reads the original as long as it exists, so no other file may get its index.
    close: () => undefined,
  };
}

export function imageTarget(
  queue: RequestQueue,
  engine: TrackerEngine,
  gate: WriteGate | undefined,
  hasArea: () => boolean,
): Target {
  const { image } = engine;
  return {
    queueIo: (tag) => {
      copyRequest(queue, image, tag, tag);
      if (!hasArea()) queue.complete(tag, -EIO);
      else if (gate?.admitImage(tag) !== false) engine.submitImage(tag);
    },
    close: () => undefined,
  };
}
