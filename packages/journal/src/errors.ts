import { BlksnapError } from "@blksnap/errors";

/** Every failure of this package, and the errno for callers that pass on errnos. */
const ERRNO_OF_CODE = {
  /** The file does not begin with a journal's header, or the header is damaged. */
  JOURNAL_FORMAT: 22,
  /** The journal was written by a version that this one does not know. */
  JOURNAL_VERSION: 95,
  /** The journal is of another kind, or has another owner. */
  JOURNAL_FOREIGN: 116,
  /** The file is shorter than its header says. */
  JOURNAL_TRUNCATED: 61,
  /** A page of the checkpoint or a sector of the log is damaged in a way that a power cut cannot cause. */
  JOURNAL_DAMAGED: 74,
  /** An argument is outside of its documented range. */
  ARGUMENT_INVALID: 22,
} as const;

/** Stable name of a failure. */
export type JournalErrorCode = keyof typeof ERRNO_OF_CODE;

/** A journal that cannot be used, or a call that cannot be carried out. */
export class JournalError extends BlksnapError<JournalErrorCode> {
  constructor(code: JournalErrorCode, message: string) {
    super(code, message, { errno: ERRNO_OF_CODE[code] });
  }
}
