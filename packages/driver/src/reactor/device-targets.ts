/** How the requests of a front and of an image come to the engine. */
import type { TrackerEngine } from "@blksnap/engine";
import type { Queue, Target } from "@blksnap/ublk";
import { takeRequest } from "./take-request.js";

export function frontTarget(queue: Queue, engine: TrackerEngine): Target {
  const { front } = engine;
  return {
    queueIo: (tag) => {
      takeRequest(queue, front, tag);
      engine.submitFront(tag);
    },
    // The image reads the original as long as it lives, and others must not get its place.
    close: () => undefined,
  };
}

/** @param admit answers whether the engine may have the request at once */
export function imageTarget(
  queue: Queue,
  engine: TrackerEngine,
  admit: (tag: number) => boolean,
): Target {
  const { image } = engine;
  return {
    queueIo: (tag) => {
      takeRequest(queue, image, tag);
      if (admit(tag)) engine.submitImage(tag);
    },
    close: () => undefined,
  };
}
