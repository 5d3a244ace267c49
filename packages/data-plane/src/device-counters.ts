/** What a tracked device counts, over all images and areas that it has had, or of the present ones. */
import type { TrackerEngine } from "@blksnap/engine";
import { type AreaCounter, NO_AREA } from "./area-counter.js";
import { IoCounter, type TrackedDeviceCounters } from "./counters.js";

export class DeviceCounters {
  readonly front: IoCounter = new IoCounter();
  /** Of the present area's image. */
  image: IoCounter = new IoCounter();
  area: AreaCounter | undefined;

  snapshot({ stats, keptDiscardBytes }: TrackerEngine): TrackedDeviceCounters {
    const engine = stats.snapshot();
    return {
      front: this.front.snapshot(),
      image: this.image.snapshot(),
      keptDiscardBytes,
      engine,
      area: this.area?.snapshot(engine) ?? NO_AREA,
    };
  }
}
