/**
 * Names the files that contain changed ranges. The image is mounted read-only, in a mount namespace that ends with
 * the command, and the file system itself reports the extents of its files: this is correct for the instant of the
 * take, and for every file system that the kernel can map.
 */
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import type { DiffRange } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";
import { runForLines } from "@blksnap/linux-block";

export interface ChangedFile {
  /** From the file system's root. */
  readonly path: string;
  /** Changed bytes, by blocks of the device; the file may own less of each. */
  readonly changed_bytes: number;
}

export interface ChangedFiles {
  readonly files: readonly ChangedFile[];
  /** Changed bytes in no file: free space, directories, metadata. */
  readonly outside_files_bytes: number;
}

type Range = Pick<DiffRange, "offset_bytes" | "length_bytes">;

/** Mount type and options: no journal is replayed, and the volume may also be mounted by its front. */
const FILE_SYSTEMS = [
  { type: "ext4", options: "ro,noload", offsetBytes: 1080, magic: Buffer.from([0x53, 0xef]) },
  { type: "xfs", options: "ro,norecovery,nouuid", offsetBytes: 0, magic: Buffer.from("XFSB") },
] as const;
const SUPERBLOCKS_BYTES = 4096;
const MOUNTED = "mounted";
const SCRIPT =
  'mount -t "$1" -o "$2" "$3" "$4" && echo mounted && cd "$4" && ' +
  "exec find . -xdev -type f -exec filefrag -v {} +";

/** Collects the files that contain the ranges, from lines of `filefrag -v`. */
export class FileMatcher {
  readonly #ranges: readonly Range[];
  /** Bytes of each range that are in files. */
  readonly #coveredBytes: number[];
  readonly #found = new Map<string, number>();
  #path = "";
  #blockBytes = 0;

  /** @param ranges sorted and disjoint */
  constructor(ranges: readonly Range[]) {
    this.#ranges = ranges;
    this.#coveredBytes = ranges.map(() => 0);
  }

  readonly line = (text: string): void => {
    const file = /^File size of (.*) is \d+ \(\d+ blocks? of (\d+) bytes\)$/.exec(text);
    if (file !== null) {
      this.#path = file[1]!.replace(/^\./, "");
      this.#blockBytes = Number(file[2]);
      return;
    }
    const extent = /^ *\d+: *\d+\.\. *\d+: *(\d+)\.\. *\d+: *(\d+):(.*)$/.exec(text);
    if (extent === null || /inline|delalloc|unknown/.test(extent[3]!)) return;
    this.#note(Number(extent[1]) * this.#blockBytes, Number(extent[2]) * this.#blockBytes);
  };

  get result(): ChangedFiles {
    const files = [...this.#found].map(([path, changed_bytes]) => ({ path, changed_bytes }));
    files.sort((a, b) => b.changed_bytes - a.changed_bytes || (a.path < b.path ? -1 : 1));
    const outside = this.#ranges.map(({ length_bytes }, index) =>
      // Files may share blocks.
      Math.max(0, length_bytes - this.#coveredBytes[index]!),
    );
    return { files, outside_files_bytes: outside.reduce((sum, bytes) => sum + bytes, 0) };
  }

  #note(offsetBytes: number, lengthBytes: number): void {
    const endBytes = offsetBytes + lengthBytes;
    for (let at = this.#firstEndingAfter(offsetBytes); at < this.#ranges.length; at++) {
      const { offset_bytes: from, length_bytes: length } = this.#ranges[at]!;
      if (from >= endBytes) return;
      const bytes = Math.min(endBytes, from + length) - Math.max(offsetBytes, from);
      this.#coveredBytes[at]! += bytes;
      this.#found.set(this.#path, (this.#found.get(this.#path) ?? 0) + bytes);
    }
  }

  #firstEndingAfter(offsetBytes: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { offset_bytes: from, length_bytes: length } = this.#ranges[middle]!;
      if (from + length <= offsetBytes) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function notNamed(message: string, more: { cause?: unknown; hint?: string } = {}) {
  return new BlksnapClientError("FILES_NOT_NAMED", `can't name files: ${message}`, more);
}

async function fileSystemOn(image: string): Promise<(typeof FILE_SYSTEMS)[number]> {
  const start = Buffer.alloc(SUPERBLOCKS_BYTES);
  let handle: FileHandle | undefined;
  try {
    handle = await open(image, "r");
    await handle.read(start, 0, start.length, 0);
  } catch (cause) {
    throw notNamed((cause as Error).message, { cause });
  } finally {
    await handle?.close();
  }
  const found = FILE_SYSTEMS.find(({ offsetBytes, magic }) =>
    magic.equals(start.subarray(offsetBytes, offsetBytes + magic.length)),
  );
  if (found !== undefined) return found;
  const hint = "Only ext2, ext3, ext4 and XFS on the whole device are supported";
  throw notNamed(`${image} has no supported file system`, { hint });
}

/**
 * @param ranges sorted and disjoint; discarded ones hold no file
 * @throws BlksnapClientError FILES_NOT_NAMED
 */
export async function changedFiles(
  image: string,
  ranges: readonly DiffRange[],
): Promise<ChangedFiles> {
  const { type, options } = await fileSystemOn(image);
  const matcher = new FileMatcher(ranges.filter(({ kind }) => kind === "changed"));
  const words = ["--mount", "sh", "-c", SCRIPT, "sh", type, options, image, tmpdir()];
  let isMounted = false;
  const { failure, said } = await runForLines("unshare", words, (line) => {
    if (isMounted) matcher.line(line);
    else isMounted = line === MOUNTED;
  });
  if (!isMounted || /not found/.test(said)) {
    const why = failure?.message ?? (said.trim().split("\n")[0] || "unshare has failed");
    throw notNamed(why, failure === undefined ? {} : { cause: failure });
  }
  return matcher.result;
}
