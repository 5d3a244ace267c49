/** Carries out the main thread's requests for a tracker's journal. */
import { assert } from "@blksnap/uring";
import type { AdoptReply, JournalRequest, MirrorJournalRequest, MirrorReply } from "./messages.js";
import type { TrackedDevice } from "./tracked-device.js";

/**
 * Carries a request out; `done` may be called later.
 * @param acquire whether the request's descriptors may be used; called in the turn that uses them
 */
export function carryOutJournal(
  device: TrackedDevice,
  request: MirrorJournalRequest | JournalRequest,
  done: (value?: unknown) => void,
  acquire: () => boolean,
): void {
  const { gate } = device;
  const journal = gate?.journal;
  switch (request.type) {
    case "mirrorJournal":
      assert(gate !== undefined && journal !== undefined, "the device has no journal");
      journal.io.whenIdle(() => {
        if (!acquire()) return;
        const { fd, logOffsetBytes, logBytes } = request;
        const place = { fd, logOffsetBytes, logBytes, usedSectors: 0 };
        gate.mirror(place, (firstSequence) => {
          const reply: MirrorReply = { firstSequence };
          done(reply);
        });
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
  }
}
