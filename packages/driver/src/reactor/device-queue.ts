/** The ublk queue of a front or an image, and how it is served. */
import type { TrackerEngine } from "@blksnap/engine";
import { Queue, type Target } from "@blksnap/ublk";
import type { Reactor } from "@blksnap/uring";
import type { QueueStart } from "../system/served-device.js";
import { errorText } from "./error-text.js";
import type { ReactorNotice } from "./messages.js";
import { takeRequest } from "./take-request.js";

export interface QueueOwner {
  readonly reactor: Reactor;
  readonly tracker: number;
  readonly notify: (notice: ReactorNotice) => void;
}

export function makeQueue(
  { reactor, tracker, notify }: QueueOwner,
  { charFd, queueDepth: depth, maxIoBytes }: QueueStart,
  onEnd: () => void,
): Queue {
  const onError = (error: unknown) =>
    notify({ notice: "error", message: `tracker ${tracker}: ${errorText(error)}` });
  return new Queue({ reactor, charFd, queueId: 0, depth, maxIoBytes, onEnd, onError });
}

export function frontTarget(queue: Queue, engine: TrackerEngine, close: () => void): Target {
  const { front } = engine;
  return {
    queueIo: (tag) => {
      takeRequest(queue, front, tag);
      engine.submitFront(tag);
    },
    close,
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
