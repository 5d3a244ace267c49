import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import {
  DiffStorageError,
  type DiffStorageErrorCode,
  type DiffStorageEvent,
  type Extent,
  SlotAllocator,
  type SlotAllocatorOptions,
  type Store,
} from "@blksnap/diff-storage";
import { LinuxBlockError } from "@blksnap/linux-block";
import * as assert from "uvu/assert";
import { ManualClock } from "../dist/testing/clock.js";

export const SLOT_BYTES = 4096;

/** Asserts that a promise or call fails with a DiffStorageError with this code; returns the error. */
export async function failsWith(
  code: DiffStorageErrorCode,
  run: () => unknown,
): Promise<DiffStorageError> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof DiffStorageError)) throw error;
    assert.is(error.code, code, error.message);
    assert.ok(error.errno > 0 && String(error.errnoName).startsWith("E"));
    return error;
  }
  throw new Error(`no ${code}`);
}

/** Asserts that a stack cannot be looked through; returns the error. */
export async function stackUnknown(run: () => unknown): Promise<LinuxBlockError> {
  try {
    await run();
  } catch (error) {
    if (!(error instanceof LinuxBlockError)) throw error;
    assert.equal([error.code, error.errnoName], ["STACK_UNKNOWN", "EINVAL"], error.message);
    return error;
  }
  throw new Error("the stack is known");
}

/** An allocator on a manual clock that collects events. Sizes in slots. */
export async function makeAllocator(
  makeStores: (clock: ManualClock) => Store[],
  options: Omit<SlotAllocatorOptions, "clock" | "onEvent" | "slotBytes"> = {},
  required = true,
): Promise<{
  allocator: SlotAllocator;
  clock: ManualClock;
  events: DiffStorageEvent[];
  stores: Store[];
}> {
  const clock = new ManualClock();
  const events: DiffStorageEvent[] = [];
  const stores = makeStores(clock);
  const onEvent = (event: DiffStorageEvent): void => void events.push(event);
  const allocator = new SlotAllocator(stores, {
    slotBytes: SLOT_BYTES,
    clock,
    onEvent,
    ...options,
  });
  await Promise.all([allocator.start(required), clock.advance(0)]);
  return { allocator, clock, events, stores };
}

/** Takes slots one by one until the answer is not a slot; returns the slots and that answer. */
export function takeAll(allocator: SlotAllocator): { slots: number[]; answer: "wait" | "full" } {
  const slots: number[] = [];
  for (;;) {
    const answer: Extent | "wait" | "full" = allocator.allocateExtent(16);
    if (typeof answer === "string") return { slots, answer };
    for (let i = 0; i < answer.count; i++) slots.push(answer.firstSlot + i);
  }
}

/** Runs `body` with a temporary directory. */
export async function withDirectory(
  body: (directory: string) => Promise<void>,
  base: string = tmpdir(),
): Promise<void> {
  const directory = mkdtempSync(join(base, "diff-storage-test-"));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A sysfs and mountinfo made of plain files. */
export class FakeTree {
  readonly root: string;
  readonly sysfsRoot: string;
  readonly mountinfoPath: string;
  #mountLines: string[] = [];

  constructor(root: string) {
    this.root = root;
    this.sysfsRoot = join(root, "sys");
    this.mountinfoPath = join(root, "mountinfo");
    mkdirSync(join(this.sysfsRoot, "dev/block"), { recursive: true });
    writeFileSync(this.mountinfoPath, "");
  }

  /** Adds a block device; `dir` is its path below devices/, such as "pci/sda/sda1". */
  device(key: string, dir: string, files: Readonly<Record<string, string>> = {}): this {
    const path = join(this.sysfsRoot, "devices", dir);
    for (const [name, text] of Object.entries({ dev: key, ...files })) {
      this.file(join("devices", dir, name), text);
    }
    symlinkSync(path, join(this.sysfsRoot, "dev/block", key));
    return this;
  }

  /** Adds a file below sysfs. */
  file(path: string, text: string): this {
    const full = join(this.sysfsRoot, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, `${text}\n`);
    return this;
  }

  /** Makes the device at `slaveDir` a part of the one at `dir`. */
  slave(dir: string, slaveDir: string): this {
    const slaves = join(this.sysfsRoot, "devices", dir, "slaves");
    mkdirSync(slaves, { recursive: true });
    const name = slaveDir.slice(slaveDir.lastIndexOf("/") + 1);
    symlinkSync(join(this.sysfsRoot, "devices", slaveDir), join(slaves, name));
    return this;
  }

  /** Adds a mount line. */
  mount(dev: string, point: string, fsType: string, source: string, options = "rw"): this {
    const id = this.#mountLines.length + 20;
    const parent = id === 20 ? 1 : 20;
    this.#mountLines.push(`${id} ${parent} ${dev} / ${point} rw - ${fsType} ${source} ${options}`);
    writeFileSync(this.mountinfoPath, `${this.#mountLines.join("\n")}\n`);
    return this;
  }
}
