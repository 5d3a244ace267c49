/** Makes a connection for a device's front or image from the main thread's request. */
import { AreaState, type CbtMap } from "@blksnap/engine";
import type { MetaContext } from "@blksnap/nbd";
import { frontAllocation, imageAllocation } from "./allocation-context.js";
import type { DeviceArea } from "./device-area.js";
import { dirtyContext } from "./dirty-context.js";
import type { ServeNbdRequest } from "./messages.js";
import type { NbdConnection } from "./nbd-door.js";

/** @param area the image's; undefined: the front */
export function connectionOf(
  request: ServeNbdRequest,
  cbt: CbtMap,
  area: DeviceArea | undefined,
): NbdConnection {
  const { fd, structured, extended, readOnly, received, holes } = request;
  // After the end of copy-on-write, unsaved blocks may have been written; reads of them fail.
  const isReadable = (): boolean => area?.isOpen === true && area.map.state === AreaState.ACTIVE;
  const allocation = (): MetaContext =>
    area === undefined ? frontAllocation(cbt, holes) : imageAllocation(area.map, holes, isReadable);
  const contexts = request.contexts.map((name) => dirtyContext(name, cbt) ?? allocation());
  return { fd, structured, extended, readOnly, received, contexts };
}
