/** A connection for a device's front or image, from the main thread. */
import type { CbtMap } from "@blksnap/engine";
import { contextNamed } from "./dirty-context.js";
import type { ServeNbdRequest } from "./messages.js";
import type { NbdConnection } from "./nbd-door.js";

export function connectionOf(request: ServeNbdRequest, cbt: CbtMap): NbdConnection {
  const { fd, structured, received } = request;
  const contexts = request.contexts.map((name) => contextNamed(name, cbt));
  return { fd, structured, received, contexts };
}
