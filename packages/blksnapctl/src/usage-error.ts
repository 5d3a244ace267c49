/** Mistakes that the command line finds itself, told like those of the daemon. */
import { ERRORS, type ErrorName } from "@blksnap/api";
import { BlksnapClientError } from "@blksnap/client";

/** Asked for in a wrong way: exit status 2. `name` is USAGE unless the catalogue has a better one. */
export function usageError(
  message: string,
  name: ErrorName = "USAGE",
  hint: string = ERRORS[name].hint,
): BlksnapClientError {
  return new BlksnapClientError(name, message, { hint });
}
