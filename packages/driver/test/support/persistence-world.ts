/** A directory for persistent trackers, and a regular file to track. */
import { closeSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlError } from "@blksnap/api";
import { CbtMap } from "@blksnap/engine";
import { type BackingFile, openBackingFile } from "@blksnap/ublk";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { PersistentDirectory } from "../../dist/records/persistent-directory.js";
import { restoreCbt } from "../../dist/records/restored-cbt.js";
import { TrackerPersistence } from "../../dist/records/tracker-persistence.js";
import type { Prepared } from "../../dist/records/tracker-persistence-options.js";
import { patientDirectory } from "./patient-directory.js";

export interface World {
  root: string;
  path: string;
  directory: PersistentDirectory;
  backing: BackingFile;
}

export const CAPACITY_BYTES = 2 ** 20;
export const CHUNK_SHIFT = 18;
const BLOCK_SHIFT = 16;

/** A suite with a world of its own for each test. */
export function persistenceSuite(name: string): ReturnType<typeof suite<World>> {
  const test = suite<World>(name);
  test.before.each((world) => {
    world.root = mkdtempSync(join(tmpdir(), "blksnap-persistent-"));
    world.path = join(world.root, "state");
    writeFileSync(join(world.root, "disk"), Buffer.alloc(CAPACITY_BYTES));
    world.directory = patientDirectory(world.path);
    world.backing = openBackingFile(join(world.root, "disk"));
  });
  test.after.each((world) => {
    world.directory.close();
    closeSync(world.backing.fd);
    rmSync(world.root, { recursive: true });
  });
  return test;
}

export function newMap(): CbtMap {
  const buffer = new ArrayBuffer(CbtMap.byteLength(CAPACITY_BYTES, BLOCK_SHIFT));
  const generation = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  return CbtMap.create(buffer, {
    capacityBytes: CAPACITY_BYTES,
    blockShift: BLOCK_SHIFT,
    generation,
  });
}

/** As a daemon that has restarted. */
export async function preparedAs(
  world: World,
  options: { persistent: boolean; uuid?: string } = { persistent: true },
): Promise<Exclude<Prepared, { kind: "unrecorded" }>> {
  world.directory.close();
  world.directory = patientDirectory(world.path);
  const found = await TrackerPersistence.prepare(world.directory, world.backing, options);
  assert.is.not(found.kind, "unrecorded");
  return found as Exclude<Prepared, { kind: "unrecorded" }>;
}

export async function prepared(
  world: World,
  options?: { persistent: boolean; uuid?: string },
): Promise<TrackerPersistence> {
  return (await preparedAs(world, options)).persistence;
}

/** The map that a later daemon gets. */
export async function restored(persistence: TrackerPersistence): Promise<CbtMap> {
  const loaded = await persistence.load();
  const buffer = new ArrayBuffer(CbtMap.restoredBytes(loaded.checkpoint));
  restoreCbt(buffer, loaded);
  return CbtMap.open(buffer);
}

/** A tracker that was attached, marked block 3, and ended in order. */
export async function ended(world: World, attached = true): Promise<CbtMap> {
  const map = newMap();
  const persistence = await prepared(world);
  await persistence.begin(map, CHUNK_SHIFT);
  map.switch();
  map.markBlocks(3, 1);
  await persistence.end(map, attached);
  return map;
}

export function fileOf(world: World, start: string): string {
  const name = readdirSync(world.path).find((one) => one.startsWith(start));
  assert.ok(name !== undefined, `no ${start}`);
  return join(world.path, name);
}

export async function refusal(work: Promise<unknown>): Promise<ControlError> {
  try {
    await work;
  } catch (error) {
    assert.instance(error, ControlError);
    return error as ControlError;
  }
  return assert.unreachable("it was not refused") as never;
}

/** The first bytes of a mounted ext4 with this many mounts. */
export function mountedExt(mounts: number): Uint8Array {
  const start = Buffer.alloc(8192);
  const at = 1024;
  start.writeUInt32LE(CAPACITY_BYTES / 4096, at + 4);
  start.writeUInt32LE(2, at + 0x18);
  start.writeUInt16LE(mounts, at + 0x34);
  start.writeUInt16LE(0xef53, at + 0x38);
  start.writeUInt16LE(1, at + 0x3a);
  start.writeUInt32LE(4, at + 0x60);
  return start;
}
