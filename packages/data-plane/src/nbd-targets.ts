/** Passes reads of NBD connections to a front's original, and to an image. */

import type { TrackerEngine } from "@blksnap/engine";
import { EIO } from "@blksnap/errors";
import { FileIo, type RequestQueue, type Target, UblkOp } from "@blksnap/ublk";
import { assert, type Reactor } from "@blksnap/uring";
import { copyRequest } from "./copy-request.js";

/**
 * Serves the content of the front, which is that of the original, whatever a snapshot does: it reads the original
 * directly. So no request of the front waits for an NBD client.
 */
export function nbdFrontTarget(
  reactor: Reactor,
  queue: RequestQueue,
  originalFd: number,
  isBlock: boolean,
): Target {
  const io = new FileIo(reactor, queue, originalFd, isBlock, {
    onFileIo: (tag, result) => queue.complete(tag, result),
  });
  return {
    queueIo: (tag) => {
      assertRead(queue, tag);
      io.submit(tag);
    },
    close: () => io.close(),
  };
}

/** @param firstTag the image's tag in the engine that stands for tag 0 of the queue */
export function nbdImageTarget(
  queue: RequestQueue,
  engine: TrackerEngine,
  firstTag: number,
  hasArea: () => boolean,
): Target {
  const { image } = engine;
  return {
    queueIo: (tag) => {
      const isRelease = queue.op(tag) === UblkOp.DISCARD;
      if (!isRelease) assertRead(queue, tag);
      if (!hasArea()) {
        queue.complete(tag, -EIO);
        return;
      }
      copyRequest(queue, image, tag, firstTag + tag);
      engine.submitImage(firstTag + tag);
    },
    close: () => undefined,
  };
}

/** The server lets only reads pass, and trims of an image: the exports are read-only and have no volatile cache. */
function assertRead(queue: RequestQueue, tag: number): void {
  assert(queue.op(tag) === UblkOp.READ, "an NBD client writes to a read-only export");
}
