import { errnoName } from "./errno.js";

export interface BlksnapErrorOptions {
  /** The kernel's number, of either sign; 0 or absent if there is none. */
  readonly errno?: number | undefined;
  /** One line that says what to do. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/**
 * Base class of all errors of the project: each package throws its own class, with its own codes.
 *
 * ```
 *   BlksnapError ◀─ UringError, UblkError, EngineError, DiffStorageError, JournalError, ...
 * ```
 */
export abstract class BlksnapError<Code extends string = string> extends Error {
  /** Stable: for programs to compare. */
  readonly code: Code;
  /** Positive; 0 if the kernel gave none. */
  readonly errno: number;
  /** What to do, if the message does not say it. */
  readonly hint: string | undefined;

  /** @param message what happened to which object; for people, without a full stop at the end */
  constructor(code: Code, message: string, { errno = 0, hint, cause }: BlksnapErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.errno = Math.abs(errno);
    this.hint = hint;
  }

  /** As "ENOSPC"; undefined where there is no errno. */
  get errnoName(): string | undefined {
    return this.errno === 0 ? undefined : errnoName(this.errno);
  }
}
