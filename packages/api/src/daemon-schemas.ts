/** Schemas of the operations on the daemon itself. */
import { list, record, recordWithOptional } from "./build.js";
import * as is from "./scalars.js";

export const daemonUpgradeResponse = record({
  pid: { ...is.count, description: "of the daemon that leaves" },
  version: is.text,
  started_by: {
    type: "string",
    enum: ["supervisor", "systemd"],
    description: "who starts the next daemon",
  },
  next_pid: { ...is.countOrNull, description: "of the next daemon, where it is ready already" },
  next_version: is.textOrNull,
});

export const daemonStopRequest = record({
  keep: { ...is.flag, description: "leave fronts and images to the next daemon" },
});
export const daemonStopResponse = record({
  pid: is.count,
  kept: { ...list(is.text), description: "devices whose users wait for the next daemon" },
});

/** A finding of one check of the host; printed by the program, not sent by the daemon. */
export const doctorCheck = recordWithOptional(
  {
    check: { ...is.text, description: "stable name" },
    state: { type: "string", enum: ["ok", "warning", "error"] },
    what: is.text,
  },
  {
    why: { ...is.text, description: "why it matters" },
    hint: { ...is.text, description: "what to do" },
    fixed: { ...is.flag, description: "it was repaired" },
  },
);
export const doctorReport = record({
  version: { ...is.text, description: "of the program on disk" },
  checks: list(doctorCheck),
});

/** A mistake in a configuration; printed by the program, not sent by the daemon. */
export const configProblem = record({
  path: { ...is.text, description: "of the file" },
  line: { ...is.countOrNull, description: "counted from 1; null where it is not known" },
  severity: { type: "string", enum: ["error", "warning"] },
  what: is.text,
  hint: { ...is.text, description: "what to do" },
});
export const configReport = record({
  version: { ...is.text, description: "of the program on disk" },
  path: { ...is.text, description: "of the configuration file" },
  files: {
    ...list(is.text),
    description: "files that were read, in order of precedence",
  },
  starts: { ...is.flag, description: "whether a daemon would start with it" },
  devices: { ...list(is.text), description: "to be attached when the daemon starts" },
  problems: list(configProblem),
});
