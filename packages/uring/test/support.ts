/** What several tests of this package need. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CQE_WORDS, high32, low32, type MappedMemory, type Ring } from "@blksnap/uring";

export const packageDir = join(import.meta.dirname, "..");

export interface Completion {
  readonly low: number;
  readonly high: number;
  readonly result: number;
}

/** Submits what is prepared and takes `count` completions. */
export function popCompletions(ring: Ring, count: number): Completion[] {
  const taken: Completion[] = [];
  while (taken.length < count) {
    ring.submitAndWait(1);
    for (; taken.length < count && ring.ready() > 0; ring.advance()) {
      const cqe = ring.headIndex();
      const [low, high, result] = ring.cqes32.subarray(cqe, cqe + CQE_WORDS);
      taken.push({ low, high, result });
    }
  }
  return taken;
}

/** Results by the low half of the user data. */
export function resultsByUser(completions: readonly Completion[]): Map<number, number> {
  return new Map(completions.map(({ low, result }) => [low, result]));
}

/** Both halves of the address of a byte of mapped memory. */
export function at(memory: MappedMemory, offsetBytes = 0): [low: number, high: number] {
  const address = memory.address + offsetBytes;
  return [low32(address), high32(address)];
}

/** Runs `use` with a folder that is gone afterwards. */
export function withFolder(use: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "uring-test-"));
  try {
    use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The same for what takes its time. */
export async function withFolderMeanwhile(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "uring-test-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Descriptors that this process has open. */
export function openDescriptors(): number {
  return readdirSync("/proc/self/fd").length;
}

/** True when a mapping of this process begins at the address. */
export function isMapped(address: number): boolean {
  return readFileSync("/proc/self/maps", "utf8").includes(`${address.toString(16)}-`);
}

/** Waits until it holds; the limit ends what hangs. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (let waited = 0; !holds(); waited++) {
    if (waited === 20_000) throw new Error(`waited in vain until ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

export interface ChildResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
  readonly errors: string;
}

let children = 0;

/**
 * Runs a module's text in a Node process of its own, as if it lay in the tests' folder.
 * @param through a program that runs it, with its words
 */
export function runChild(
  text: string,
  flags: readonly string[] = [],
  through: readonly string[] = [],
): ChildResult {
  children++;
  const file = join(import.meta.dirname, `child-${process.pid}-${children}.mjs`);
  writeFileSync(file, text);
  try {
    const [program, ...words] = [...through, process.execPath, ...flags, file];
    const run = spawnSync(program as string, words, {
      encoding: "utf8",
      timeout: 200_000,
      killSignal: "SIGKILL",
    });
    return { status: run.status, signal: run.signal, output: run.stdout, errors: run.stderr };
  } finally {
    rmSync(file);
  }
}
