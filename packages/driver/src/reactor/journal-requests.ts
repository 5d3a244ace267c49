/** What the main thread asks of the journals of a device. */
import { assert } from "@blksnap/uring";
import type {
  AdoptReply,
  GrowAreaJournalRequest,
  JournalRequest,
  MirrorJournalRequest,
  MirrorReply,
} from "./messages.js";
import type { TrackedDevice } from "./tracked-device.js";

/**
 * Carries a request out; `done` may be called later.
 * @param take whether its descriptors may be looked at: asked in the turn in which they are
 */
export function carryOutJournal(
  device: TrackedDevice,
  request: MirrorJournalRequest | GrowAreaJournalRequest | JournalRequest,
  done: (value?: unknown) => void,
  take: () => boolean,
): void {
  const { gate, areaJournal } = device;
  const journal = gate?.journal;
  switch (request.type) {
    case "mirrorJournal":
      assert(gate !== undefined && journal !== undefined, "the device has no journal");
      journal.io.whenIdle(() => {
        if (!take()) return;
        const { fd, logOffsetBytes, logBytes } = request;
        const place = { fd, logOffsetBytes, logBytes, usedSectors: 0 };
        const reply: MirrorReply = { firstSequence: gate.mirror(place) };
        journal.whenCommitted(() => done(reply));
      });
      return;
    case "adoptJournal":
      assert(journal !== undefined, "the device has no journal");
      journal.io.whenIdle(() => {
        const reply: AdoptReply = { adopted: journal.io.adopt() };
        done(reply);
      });
      return;
    case "dropJournal":
      journal?.drop();
      done();
      return;
    case "commitJournal":
      if (journal === undefined) done();
      else journal.whenCommitted(done);
      return;
    case "growAreaJournal":
      if (request.area === device.areaId) areaJournal?.io.grown(request.logBytes);
      done();
      return;
    case "dropAreaJournal":
      device.noteAreaLost();
      areaJournal?.drop();
      done();
  }
}
