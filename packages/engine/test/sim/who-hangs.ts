/** Names of the requests that have not ended. */
import { FrontState } from "./front-state.js";
import type { SimDevice } from "./sim-device.js";

export function whoHangs(devices: readonly SimDevice[]): string {
  const names: string[] = [];
  for (const device of devices) {
    device.frontState.forEach((state, tag) => {
      if (state !== FrontState.FREE) names.push(`dev${device.number} front ${tag}`);
    });
    device.image.requests.forEach((request, tag) => {
      if (request !== null) names.push(`dev${device.number} image ${tag}`);
    });
  }
  return names.join(", ");
}
