/** Carries out the main thread's requests for a device's diff areas. Areas that are gone answer with nothing. */
import { assert } from "@blksnap/uring";
import { loseSlots } from "./lost-slots.js";
import type { AdoptReply, AreaRequest, CloseAreaReply, MirrorReply } from "./messages.js";
import type { QueueMemory } from "./queue-memory.js";
import type { TrackedDevice } from "./tracked-device.js";

/**
 * Carries a request out; `done` may be called later.
 * @param acquire whether its descriptors may be used
 * @param memory for the buffers of an image's queue
 */
export function carryOutArea(
  device: TrackedDevice,
  request: AreaRequest,
  done: (value?: unknown) => void,
  acquire: () => boolean,
  memory?: QueueMemory,
): void {
  const area = device.areaOf(request.area);
  switch (request.type) {
    case "openImage":
      if (!acquire()) return;
      assert(area !== undefined, "an image needs its diff area");
      area.openImage(request.queue, memory);
      done();
      return;
    case "awaitImageEnd":
      if (area === undefined) done();
      else area.awaitImageEnd(done);
      return;
    case "dropArea":
      if (area === undefined) done();
      else area.drop(done);
      return;
    case "closeArea": {
      const close = (): void => {
        const reply: CloseAreaReply = { isLate: area?.close() ?? null };
        done(reply);
      };
      if (area === undefined) close();
      else area.endNbd(close);
      return;
    }
    case "loseSlots":
      if (area?.isOpen === true) loseSlots(device.engine, device.slices, request, done);
      else done();
      return;
    case "lostRanges":
      if (area === undefined) done([]);
      else area.lostRanges.read(done);
      return;
    case "giveBackSlots":
      area?.giveBackSlots();
      done();
      return;
    case "dropAreaJournal":
      area?.dropJournal();
      done();
      return;
    case "growAreaJournal":
      area?.journal?.io.grown(request.fd, request.logBytes);
      done();
      return;
    case "compactAreaJournal": {
      const report = (firstSequence: number | null): void => {
        const reply: MirrorReply = { firstSequence };
        done(reply);
      };
      if (area?.journal === undefined) report(null);
      else area.journal.compact({ ...request, usedSectors: 0 }, area.map, report);
      return;
    }
    case "adoptAreaJournal": {
      const report = (adopted: boolean): void => {
        const reply: AdoptReply = { adopted };
        done(reply);
      };
      if (area?.journal === undefined) report(false);
      else area.journal.adopt(report);
      return;
    }
    case "abandonAreaJournal":
      if (area?.journal === undefined) done();
      else area.journal.abandon(done);
  }
}
