/** The log of an area's journal is renewed in a real file, while a reactor appends to it. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { LogNeed, MirrorReply } from "@blksnap/data-plane";
import { DiffAreaMap } from "@blksnap/engine";
import { Dice } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { AreaJournal } from "../../../data-plane/dist/area-journal.js";
import {
  AreaJournalFile,
  type AreaJournalRequests,
  loadAreaJournal,
} from "../../dist/records/area-journal-file.js";
import { KeptFile } from "../../dist/records/file-names.js";
import type { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import { PackedFile, PackedKernel } from "../journal-sim/packed-kernel.js";
import { patientDirectory } from "../support/patient-directory.js";

const UUID = "0d1f7a52-6a2e-4a53-9c1e-0f4bb6b1a002";
const CHUNKS = 2000;
/** Not a descriptor of this process. */
const STORE_FD = 2 ** 20;
const GEOMETRY = {
  capacityBytes: CHUNKS * 2 ** 18,
  logicalBlockBytes: 512,
  chunkShift: 18,
  blockShift: 12,
};

class RealFile extends PackedFile {
  constructor(fd: number) {
    super(fd, 0);
  }

  override write(offset: number, bytes: Uint8Array): void {
    writeSync(this.fd, bytes, 0, bytes.length, offset);
  }

  override sync(): void {
    // Power cuts are not tested here.
  }
}

/** A reactor that saves block after block, and its requests to the journal. */
class Area {
  readonly kernel: PackedKernel = new PackedKernel();
  readonly map: DiffAreaMap;
  readonly file: AreaJournalFile;
  readonly journal: AreaJournal;
  readonly needs: LogNeed[] = [];
  readonly problems: unknown[] = [];
  serving = 0;
  saved = 0;
  requests: AreaJournalRequests;
  readonly #dice = new Dice(3);
  #waiting: [number, number] | undefined;

  constructor(file: AreaJournalFile) {
    this.file = file;
    this.map = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
    this.kernel.useFile(new RealFile(file.setup.fd));
    this.kernel.useFile(new PackedFile(STORE_FD, 0));
    this.requests = {
      compact: (place) =>
        new Promise<MirrorReply>((resolve) => {
          this.kernel.useFile(new RealFile(place.fd));
          this.journal.compact({ ...place, usedSectors: 0 }, this.map, (firstSequence) =>
            resolve({ firstSequence }),
          );
        }),
      adopt: () => new Promise((resolve) => this.journal.adopt((adopted) => resolve({ adopted }))),
      abandon: () => new Promise((resolve) => this.journal.abandon(resolve)),
      grown: async (fd, logBytes) => this.journal.io.grown(fd, logBytes),
    };
    this.journal = new AreaJournal({
      reactor: this.kernel.asReactor(),
      setup: file.setup,
      ticker: { start: () => undefined } as never,
      syncFds: [STORE_FD],
      copiesMax: 32,
      runsMax: 32,
      onCopied: () => this.#onCopied(),
      onWritten: () => undefined,
      onFault: (errno) => void this.problems.push(errno),
      onLow: (need) => {
        this.needs.push(need);
        this.serving++;
        file
          .serve(need, this.requests)
          .catch((error: unknown) => this.problems.push(error))
          .finally(() => this.serving--);
      },
    });
  }

  /** Saves blocks one at a time, as writes at queue depth 1 do, and sometimes waits for the main thread. */
  async save(count: number): Promise<void> {
    for (const end = this.saved + count; this.saved < end; ) {
      const chunk = this.#dice.below(CHUNKS);
      const block = this.#dice.below(64);
      if (this.map.slotOf(chunk) < 0) this.map.setSlot(chunk, chunk + 1);
      this.#waiting = [chunk, block];
      this.journal.copied(0, chunk, chunk + 1, block, block + 1);
      while (this.#waiting !== undefined) {
        while (this.kernel.step());
        if (this.#waiting === undefined) break;
        assert.ok(this.serving > 0, `a commit waits, and nothing is done for it: ${this.needs}`);
        await nextTurn();
      }
      if (this.saved % 64 === 0) await nextTurn();
    }
    while (this.serving > 0) {
      await nextTurn();
      while (this.kernel.step());
    }
  }

  #onCopied(): void {
    const [chunk, block] = this.#waiting!;
    this.map.setSaved(chunk, block, block + 1);
    this.#waiting = undefined;
    this.saved++;
  }
}

let directory: PersistentDirectory;
const path = () => directory.file(KeptFile.areaJournal.name(UUID));

test.before.each(async () => {
  directory = patientDirectory(mkdtempSync(join(tmpdir(), "blksnap-renewal-")));
  await directory.own();
});
test.after.each(() => {
  directory.close();
  rmSync(directory.path, { recursive: true });
});

/** After a power cut, the file has the content of the reactor's map. */
async function assertLoads(area: Area): Promise<void> {
  const found = DiffAreaMap.create(new ArrayBuffer(DiffAreaMap.byteLength(GEOMETRY)), GEOMETRY);
  await loadAreaJournal(directory, UUID, found, () => undefined);
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    for (const word of [0, 1]) {
      assert.is(found.dataBits(chunk, word), area.map.dataBits(chunk, word), `chunk ${chunk}`);
    }
    if (area.map.dataBits(chunk, 0) !== 0) assert.is(found.slotOf(chunk), chunk + 1);
  }
}

test("a log is renewed again and again, and has everything", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  const isLong = () => statSync(path()).size > 3 * 2 ** 20;
  // One whose renewal is late on a busy disk becomes longer, until the next.
  for (let round = 0; round < 5 || (isLong() && round < 20); round++) {
    await area.save(2000);
    await assertLoads(area);
  }
  assert.equal(area.problems, []);
  const renewals = area.needs.filter((need) => need === "renewal").length;
  assert.ok(renewals >= 4, area.needs.join(" "));
  assert.not.ok(isLong(), `${statSync(path()).size} bytes`);
  assert.not.ok(existsSync(`${path()}.new`));
  // The store, and one log.
  assert.is(area.kernel.filesOpen, 2);
  area.journal.drop();
  await area.file.close();
});

test("a log that is half full before its predecessor is closed is renewed next", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  const { adopt } = area.requests;
  let adoptions = 0;
  area.requests = {
    ...area.requests,
    adopt: async () => {
      const answer = await adopt();
      adoptions++;
      const before = area.needs.length;
      while (adoptions === 1 && !area.needs.includes("renewal", before)) await nextTurn();
      return answer;
    },
  };
  await area.save(12_000);
  assert.equal(area.problems, []);
  assert.ok(adoptions > 1, area.needs.join(" "));
  await assertLoads(area);
  area.journal.drop();
  await area.file.close();
});

test("without room for a second file, the log becomes longer", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  mkdirSync(`${path()}.new`);
  await area.save(3000);
  assert.equal(area.problems, []);
  assert.ok(area.file.logBytes > 2 ** 20, `${area.file.logBytes} bytes`);
  await assertLoads(area);
  rmSync(`${path()}.new`, { recursive: true });
  await area.save(3000);
  assert.ok(statSync(path()).size <= 3 * 2 ** 20, "it is made anew once there is room");
  await assertLoads(area);
  area.journal.drop();
  await area.file.close();
});

test("a successor that cannot become longer is given up, and the journal continues", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  const { compact, grown } = area.requests;
  let failures = 0;
  let growth = Promise.resolve();
  area.requests = {
    ...area.requests,
    compact: (place) => {
      const answer = compact(place);
      growth = area.file.serve("mirror", area.requests);
      return answer;
    },
    grown: (fd, logBytes) => {
      if (fd === area.file.setup.fd) return grown(fd, logBytes);
      failures++;
      return Promise.reject(new Error("no space left on device"));
    },
  };
  await area.save(1500);
  await growth;
  assert.ok(failures > 0, "it was never tried");
  assert.equal(area.problems, []);
  assert.ok(area.file.logBytes >= 2 ** 21, `${area.file.logBytes} bytes`);
  assert.not.ok(existsSync(`${path()}.new`));
  // The store, and one log.
  assert.is(area.kernel.filesOpen, 2);
  await assertLoads(area);
  area.journal.drop();
  await area.file.close();
});

test("a successor that the reactor cannot use is given up, and the log becomes longer", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  const { compact } = area.requests;
  const refuse = () => Promise.reject(new Error("a reactor has no room for more files"));
  const begin = (place: Parameters<typeof compact>[0]) => compact(place).then(refuse);
  for (const refused of [refuse, begin]) {
    const before = area.file.logBytes;
    area.requests = { ...area.requests, compact: refused };
    await area.save(1500);
    assert.equal(area.problems, []);
    assert.ok(area.file.logBytes > before, `${area.file.logBytes} bytes`);
    assert.not.ok(existsSync(`${path()}.new`));
    // The store, and one log.
    assert.is(area.kernel.filesOpen, 2);
    await assertLoads(area);
  }
  area.journal.drop();
  await area.file.close();
});

test("an area that ends meanwhile leaves its journal, and no second file", async () => {
  const area = new Area(await AreaJournalFile.create(directory, UUID));
  const { compact } = area.requests;
  area.requests = {
    ...area.requests,
    compact: (place) => {
      const answer = compact(place);
      area.journal.drop();
      return answer;
    },
  };
  const before = area.needs.length;
  await area.save(1030);
  assert.ok(area.needs.length > before);
  await area.file.close();
  assert.not.ok(existsSync(`${path()}.new`));
  assert.equal(area.problems, []);
});

test.run();
