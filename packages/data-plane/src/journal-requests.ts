/** What the main thread asks of the journals of a device. */
import { assert } from "@blksnap/uring";
import type {
  AdoptReply,
  CompactAreaJournalRequest,
  GrowAreaJournalRequest,
  JournalRequest,
  MirrorJournalRequest,
  MirrorReply,
  SuccessorRequest,
} from "./messages.js";
import type { TrackedDevice } from "./tracked-device.js";

/**
 * Carries a request out; `done` may be called later.
 * @param take whether its descriptors may be looked at: asked in the turn in which they are
 */
export function carryOutJournal(
  device: TrackedDevice,
  request: MirrorJournalRequest | JournalRequest,
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
      return;
    case "dropAreaJournal":
      device.noteAreaLost();
      areaJournal?.drop();
      done();
  }
}

/** The same of the journal of an area; one that has gone has no journal. */
export function carryOutAreaJournal(
  device: TrackedDevice,
  request: GrowAreaJournalRequest | CompactAreaJournalRequest | SuccessorRequest,
  done: (value?: unknown) => void,
): void {
  const { areaMap } = device;
  const areaJournal = request.area === device.areaId ? device.areaJournal : undefined;
  switch (request.type) {
    case "growAreaJournal":
      areaJournal?.io.grown(request.fd, request.logBytes);
      done();
      return;
    case "compactAreaJournal": {
      const tell = (firstSequence: number | null): void => {
        const reply: MirrorReply = { firstSequence };
        done(reply);
      };
      if (areaJournal === undefined || areaMap === undefined) tell(null);
      else areaJournal.compact({ ...request, usedSectors: 0 }, areaMap, tell);
      return;
    }
    case "adoptAreaJournal": {
      const tell = (adopted: boolean): void => {
        const reply: AdoptReply = { adopted };
        done(reply);
      };
      if (areaJournal === undefined) tell(false);
      else areaJournal.adopt(tell);
      return;
    }
    case "abandonAreaJournal":
      if (areaJournal === undefined) done();
      else areaJournal.abandon(done);
  }
}
