/**
 * A process that exports or restores, and dies at the start of its operation number `last` on files or connections. A
 * seed determines the device's content at each number, so that the next process finds the same device.
 *
 * node kill-victim.js KIND SEED NUMBER LAST FOLDER; prints the number of operations if it reaches the end. Its
 * temporary files remain: the caller removes them, as after a kill.
 */
import { createHook } from "node:async_hooks";
import { createCipheriv } from "node:crypto";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { exportQcow2 } from "../dist/export-qcow2.js";
import { exportRaw } from "../dist/export-raw.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { exportStream } from "../dist/export-stream.js";
import type { Wanted } from "../dist/plan.js";
import { isOfThisVersion, readRecord, recordPathOf } from "../dist/raw-record.js";
import { restore } from "../dist/restore.js";
import { restoreStream } from "../dist/restore-stream.js";
import { openS3 } from "../dist/s3-objects.js";
import { BackupStore } from "../dist/store.js";
import { FakeMachine, MIB } from "./fake-machine.js";

export const KINDS = ["store", "s3", "raw", "restore", "delta", "stream", "qcow2"] as const;
export type Kind = (typeof KINDS)[number];

/** The server in the environment. */
export const PLACE = "s3://backups/kills";
/** Operations on connections: requests are written to them. */
const OPERATION = /^FSREQ|^WRITEWRAP$|^TCPCONNECTWRAP$/;

/** Two chunks, and more than the head of a block device. */
const CAPACITY_BYTES = 4 * MIB + 65_536;
const BLOCK_BYTES = 65_536;
const WRITES = 3;

/** Pseudo-random bytes, the same for the same words. */
export function seededBytes(length: number, ...words: readonly number[]): Buffer {
  const key = Buffer.alloc(16);
  for (const [index, word] of words.entries()) key.writeUInt32LE(word, 4 * index);
  return createCipheriv("aes-128-ctr", key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** A device that has been in `number` snapshots, and was written to in between. */
export function machineAt(seed: number, number: number): FakeMachine {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.generation = "5eed0000-0000-4000-8000-000000000000";
  for (let taken = 0; taken <= number; taken++) {
    for (let write = 0; write < WRITES; write++) {
      const data = seededBytes(BLOCK_BYTES + 4, seed, taken, write);
      const block = data.readUInt32LE(BLOCK_BYTES) % (CAPACITY_BYTES / BLOCK_BYTES);
      machine.write(block * BLOCK_BYTES, data.subarray(0, BLOCK_BYTES));
    }
    if (taken < number) machine.pass();
  }
  return machine;
}

function optionsOf(machine: FakeMachine, hostFolder: string): Omit<ExportOptions, "wanted"> {
  const { client, device } = machine;
  // What it has read is gone from the image at once.
  machine.exported = "nbd+unix:///image";
  const freeing = { freesMinBytes: 0, openTrims: async () => machine.openTrims() };
  const own = { stores: ["/var/tmp"], limitBytes: MIB, host: "here", hostFolder };
  return { client, device, ...own, ...freeing };
}

/**
 * Sends and receives changes since the copy. They do not fit if a process died when its copy was complete, but not yet
 * on record: then the whole device, of a machine that has not been in the first snapshot.
 */
async function pipe(machineOf: () => FakeMachine, folder: string): Promise<void> {
  const target = join(folder, "piped");
  const known = await readRecord(recordPathOf(target));
  const wishes: Wanted[] = [{ kind: "full" }];
  if (known !== undefined && isOfThisVersion(known)) {
    wishes.unshift({ kind: "since", number: known.changes_number });
  }
  for (const wanted of wishes) {
    const input = new PassThrough();
    const sink = {
      write: async (data: Uint8Array) => void input.write(Buffer.from(data)),
      end: async () => void input.end(),
    };
    const sent = exportStream({ ...optionsOf(machineOf(), folder), wanted, sink });
    const [restored] = await Promise.allSettled([restoreStream({ input, target }), sent]);
    if (restored.status === "fulfilled") return;
    if (restored.reason.code !== "BACKUP_CHAIN_BROKEN") throw restored.reason;
  }
}

/** @param seed with an even one, threads write a raw copy */
async function run(kind: Kind, number: number, folder: string, seed: number): Promise<void> {
  const machineOf = (): FakeMachine => machineAt(seed, number);
  if (kind === "stream") return await pipe(machineOf, folder);
  const options = { ...optionsOf(machineOf(), folder), wanted: { kind: "auto" } as const };
  if (kind === "qcow2") {
    await exportQcow2({ ...options, folder: join(folder, "chain") });
    return;
  }
  if (kind === "raw") {
    const threadsMinBytes = seed % 2 === 0 ? 0 : undefined;
    await exportRaw({ ...options, target: join(folder, "copy"), threadsMinBytes });
    return;
  }
  const store = await BackupStore.openOrCreate(
    kind === "s3" ? openS3(PLACE) : join(folder, "store"),
  );
  if (kind === "store" || kind === "s3") {
    await exportToStore(store, options);
    return;
  }
  const point = (await store.points()).at(-1);
  const target = join(folder, kind);
  if (point !== undefined) await restore({ store, point, target, isDelta: kind === "delta" });
}

if (process.argv[1] === import.meta.filename) {
  const [kind, seed, number, last, folder] = process.argv.slice(2) as [Kind, ...string[]];
  let operations = 0;
  createHook({
    init(_, type) {
      if (OPERATION.test(type) && ++operations === Number(last)) {
        process.kill(process.pid, "SIGKILL");
      }
    },
  }).enable();
  await run(kind, Number(number), folder!, Number(seed));
  console.log(operations);
}
