/** Real exports and restores, killed at seeded moments: SEED=N replays them, KILLS=N has more. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { FakeS3 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { collectGarbage, verify } from "../dist/care.js";
import { qcow2Points } from "../dist/qcow2-points.js";
import { recordPathOf } from "../dist/raw-record.js";
import { restore } from "../dist/restore.js";
import { openS3 } from "../dist/s3-objects.js";
import { BackupStore } from "../dist/store.js";
import { assertSame } from "./fake-machine.js";
import { KINDS, type Kind, machineAt, PLACE, seededBytes } from "./kill-victim.js";

const KILLS = Number(process.env["KILLS"] ?? 12);
const SEED = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
const VICTIM = join(import.meta.dirname, "kill-victim.js");

class Kills {
  readonly folder: string = mkdtempSync(join(tmpdir(), "blksnap-kills-"));
  readonly #s3: FakeS3;
  /** Operations of a whole run of each kind. */
  readonly #wholes = new Map<Kind, number>();
  /** Content of the device in each snapshot. */
  readonly #contents: Buffer[] = [Buffer.alloc(0)];
  killed = 0;
  readonly #judged = new Set<string>();

  constructor(s3: FakeS3) {
    this.#s3 = s3;
  }

  get store(): string {
    return join(this.folder, "store");
  }

  /** Content of the snapshot with this number. */
  contentOf(number: number): Buffer {
    for (let next = this.#contents.length; next <= number; next++) {
      const machine = machineAt(SEED, next - 1);
      this.#contents.push(machine.content);
      machine.remove();
    }
    return this.#contents[number]!;
  }

  /** @param number of snapshots before it; it takes one more in any case */
  async run(kind: Kind, number: number, last: number): Promise<void> {
    const scratch = join(this.folder, "scratch");
    mkdirSync(scratch);
    const words = [VICTIM, kind, SEED, number, last, this.folder].map(String);
    const env = { ...process.env, ...this.#s3.environment, TMPDIR: scratch };
    const stdio: ["ignore", "pipe", "pipe"] = ["ignore", "pipe", "pipe"];
    const victim = spawn(process.execPath, words, { env, stdio });
    const [stdout, stderr, [status, signal]] = await Promise.all([
      text(victim.stdout),
      text(victim.stderr),
      once(victim, "close") as Promise<[number | null, NodeJS.Signals | null]>,
    ]);
    rmSync(scratch, { recursive: true });
    if (signal === "SIGKILL") this.killed++;
    else {
      assert.is(status, 0, `${kind} as of ${number}: ${stderr}`);
      this.#wholes.set(kind, Math.max(this.#wholes.get(kind) ?? 0, Number(stdout)));
    }
  }

  wholeOf(kind: Kind): number {
    return this.#wholes.get(kind)!;
  }

  /** Whatever looks complete is complete. */
  async check(): Promise<void> {
    for (const name of ["copy", "piped"]) {
      const copy = join(this.folder, name);
      if (!existsSync(copy)) continue;
      const record = JSON.parse(readFileSync(recordPathOf(copy), "utf8")) as {
        changes_number: number;
      };
      await assertSame(copy, this.contentOf(record.changes_number));
    }
    await this.checkChain();
    const points = await (await BackupStore.open(this.store)).points();
    for (const kind of ["restore", "delta"] as const) {
      const target = join(this.folder, kind);
      if (!existsSync(target)) continue;
      const found = readFileSync(target);
      const isPoint = points.some((one) => this.contentOf(one.changes_number).equals(found));
      assert.ok(isPoint, `${kind} looks complete, and is not a point`);
      if (kind === "restore") rmSync(target);
    }
  }

  /** QEMU finds the device's content in each file with its final name and record. */
  async checkChain(): Promise<void> {
    const chain = join(this.folder, "chain");
    for (const { name, changes_number } of await qcow2Points(chain)) {
      if (this.#judged.has(name)) continue;
      this.#judged.add(name);
      const content = join(this.folder, "content");
      writeFileSync(content, this.contentOf(changes_number));
      const path = join(chain, name);
      execFileSync("qemu-img", ["compare", "-q", "-f", "qcow2", "-F", "raw", path, content]);
      execFileSync("qemu-img", ["check", "-q", "-f", "qcow2", path]);
    }
    const without = readdirSync(chain).filter((name) => name.endsWith(".qcow2"));
    assert.is(without.length, this.#judged.size, "a file without a record has its name");
  }

  /** The folder, and the bucket. */
  async stores(): Promise<BackupStore[]> {
    const place = openS3(PLACE, { environment: this.#s3.environment });
    return [await BackupStore.open(this.store), await BackupStore.open(place)];
  }

  /** All points have the device's content. */
  async checkPoints(): Promise<void> {
    this.#judged.clear();
    await this.checkChain();
    for (const store of await this.stores()) await this.#checkPointsOf(store);
  }

  async #checkPointsOf(store: BackupStore): Promise<void> {
    const points = await store.points();
    assert.equal((await verify(store, points)).damaged, []);
    for (const point of points) {
      const target = join(this.folder, "point");
      await restore({ store, point, target });
      await assertSame(target, this.contentOf(point.changes_number));
      rmSync(target);
    }
  }
}

test(`${KILLS} kills of exports and restores: what looks complete is, and the next one continues`, async () => {
  console.log(`SEED=${SEED}`);
  const s3 = await FakeS3.listen();
  const kills = new Kills(s3);
  let number = 0;
  for (const kind of KINDS) await kills.run(kind, number++, 0);
  await kills.check();
  for (let round = 0; round < KILLS; round++) {
    const random = seededBytes(8, SEED, round, 99);
    const kind = KINDS[random.readUInt32LE(0) % KINDS.length]!;
    const last = 1 + (random.readUInt32LE(4) % kills.wholeOf(kind));
    await kills.run(kind, number++, last);
    await kills.check();
  }
  assert.ok(kills.killed > KILLS / 2, `${kills.killed} of ${KILLS} were killed`);
  for (const kind of KINDS) await kills.run(kind, number++, 0);
  await kills.check();
  for (const name of ["copy", "piped"]) assert.ok(existsSync(join(kills.folder, name)));
  await kills.checkPoints();
  for (const store of await kills.stores()) await collectGarbage(store);
  await kills.checkPoints();
  s3.close();
  rmSync(kills.folder, { recursive: true });
});

test.run();
