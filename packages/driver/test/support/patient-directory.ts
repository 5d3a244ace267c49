import { PersistentDirectory } from "../../dist/records/persistent-directory.js";

/** A limit that only ends a test that hangs. */
const HANG_MS = 200_000;

/**
 * A directory on a real disk, which may answer late where other programs sync theirs: that counts as hung only in tests
 * that set a limit themselves.
 */
export function patientDirectory(path: string): PersistentDirectory {
  return new PersistentDirectory(path, HANG_MS, HANG_MS);
}
