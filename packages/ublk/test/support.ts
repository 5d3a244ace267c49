/** What several tests of this package need. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UblkError, type UblkErrorCode } from "@blksnap/ublk";
import type { DeviceParams } from "../dist/layout.js";

export const packageDir = join(import.meta.dirname, "..");

export const PARAMS: DeviceParams = {
  capacityBytes: 1 << 30,
  logicalBlockBytes: 512,
  physicalBlockBytes: 4096,
  ioMinBytes: 4096,
  ioOptBytes: 65536,
  readOnly: false,
  rotational: false,
  volatileCache: true,
  fua: false,
  discardMaxBytes: 16 << 20,
  discardGranularityBytes: 4096,
  writeZeroesMaxBytes: 8 << 20,
};

/** For assert.throws: a UblkError of this code and errno. */
export function isError(
  code: UblkErrorCode,
  errno?: number,
  text = "",
): (error: unknown) => boolean {
  return (error) =>
    error instanceof UblkError &&
    error.code === code &&
    (errno === undefined || error.errno === errno) &&
    error.message.includes(text);
}

/** Runs `use` with a folder on a real file system that is gone afterwards. */
export async function withFolder(use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "ublk-test-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
