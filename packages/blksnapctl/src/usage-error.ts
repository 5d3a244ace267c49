/** Usage errors of the command line, in the form of the daemon's errors. */
import { ERRORS, type ErrorName } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";

/** Wrong usage: exit status 2. `name` is USAGE unless the catalogue has a better one. */
export function usageError(
  message: string,
  name: ErrorName = "USAGE",
  hint: string = ERRORS[name].hint,
): BlksnapClientError {
  return new BlksnapClientError(name, message, { hint });
}
