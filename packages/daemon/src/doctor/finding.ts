/** The result of a check of the host. */
import type { DoctorCheck } from "@blksnap/api";

export type Finding = DoctorCheck;

/** A finding that can be fixed. */
export interface FixableFinding extends Finding {
  /** Fixes it, and returns what was done. */
  readonly fix?: () => Promise<string>;
}

export function ok(check: string, what: string): Finding {
  return { check, state: "ok", what };
}

/** @param why it matters @param hint what to do */
export function warning(check: string, what: string, why: string, hint: string): Finding {
  return { check, state: "warning", what, why, hint };
}

/** @param why it matters @param hint what to do */
export function error(check: string, what: string, why: string, hint: string): Finding {
  return { check, state: "error", what, why, hint };
}
