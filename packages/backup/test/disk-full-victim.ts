/**
 * Exports and restores of each kind onto a file system that becomes full in the middle: the error is named, nothing
 * looks complete, and with more space the same succeeds. node disk-full-victim.js FOLDER, a tmpfs of its own.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import * as assert from "uvu/assert";
import { verify } from "../dist/care.js";
import { exportQcow2 } from "../dist/export-qcow2.js";
import { exportRaw } from "../dist/export-raw.js";
import { exportToStore } from "../dist/export-store.js";
import { exportStream } from "../dist/export-stream.js";
import { restore } from "../dist/restore.js";
import { restoreStream } from "../dist/restore-stream.js";
import { BackupStore } from "../dist/store.js";
import { verifyQcow2 } from "../dist/verify-copies.js";
import { assertSame, FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 12 * MIB;
const [, , folder = ""] = process.argv;
const machine = new FakeMachine(CAPACITY_BYTES);
machine.write(0, randomBytes(CAPACITY_BYTES));
const { client, device } = machine;
const wanted = { kind: "auto" } as const;
const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here", wanted };
const target = join(folder, "target");

function resize(sizeMib: number): void {
  execFileSync("mount", ["-o", `remount,size=${sizeMib}m`, folder]);
}

async function piped(): Promise<void> {
  const input = new PassThrough();
  const sink = {
    write: async (data: Uint8Array) => void input.write(Buffer.from(data)),
    end: async () => void input.end(),
  };
  const sent = exportStream({ ...own, wanted: { kind: "full" }, sink });
  await Promise.all([restoreStream({ input, target }), sent]);
}

const elsewhere = await BackupStore.openOrCreate(machine.path("store"));
const point = await exportToStore(elsewhere, own);

interface Kind {
  readonly run: () => Promise<unknown>;
  /** Fails if something looks complete. */
  readonly checkIncomplete: () => Promise<void>;
  readonly checkWhole: () => Promise<void>;
}

const file = {
  checkIncomplete: async () => assert.not.ok(existsSync(target)),
  checkWhole: () => assertSame(target, machine.content),
};
const KINDS: Record<string, Kind> = {
  store: {
    run: async () => exportToStore(await BackupStore.openOrCreate(target), own),
    checkIncomplete: async () => assert.equal(await (await BackupStore.open(target)).points(), []),
    checkWhole: async () => {
      const store = await BackupStore.open(target);
      const points = await store.points();
      const { damaged } = await verify(store, points);
      assert.equal([points.length, damaged], [1, []]);
    },
  },
  raw: { ...file, run: () => exportRaw({ ...own, target }) },
  "raw by threads": { ...file, run: () => exportRaw({ ...own, target, threadsMinBytes: 0 }) },
  restore: { ...file, run: () => restore({ store: elsewhere, point, target }) },
  stream: { ...file, run: piped },
  qcow2: {
    run: () => exportQcow2({ ...own, folder: target }),
    checkIncomplete: async () =>
      assert.equal(
        readdirSync(target).filter((name) => name.endsWith(".qcow2")),
        [],
      ),
    checkWhole: async () => {
      const { points, damaged } = await verifyQcow2({ folder: target });
      assert.equal([points, damaged], [1, []]);
    },
  },
};

for (const [name, { run, checkIncomplete, checkWhole }] of Object.entries(KINDS)) {
  resize(6);
  const error = await failureOf(run());
  assert.is(error.code, "TARGET_FULL", `${name}: ${error.code}: ${error.message}`);
  await checkIncomplete();
  resize(64);
  await run();
  await checkWhole();
  for (const left of readdirSync(folder)) rmSync(join(folder, left), { recursive: true });
  console.log(name);
}
machine.remove();
