/**
 * Fronts with users but without a usable record: it is damaged, or of another version, or /run was lost. Any device may
 * be their original. If that device got a second front, its users would write past the first one, and a program that
 * can read the record would resume the first one, whose map misses those writes.
 */
import { ControlError } from "@blksnap/api";
import type { Frontend } from "../frontend/frontend.js";
import type { TrackerRecord } from "../records/records.js";

type FrontLook = Pick<Frontend, "otherFronts" | "isFrontGone" | "nameOf">;

export class UnknownFronts {
  readonly #frontend: FrontLook;
  /** The set never grows. */
  readonly #numbers: Set<number>;

  constructor(frontend: FrontLook, numbers: readonly number[]) {
    this.#frontend = frontend;
    this.#numbers = new Set(numbers);
  }

  /** Call it before anything new is served. @param records usable records of trackers, whether served or not */
  static async find(
    frontend: FrontLook,
    records: readonly Pick<TrackerRecord, "front">[],
  ): Promise<UnknownFronts> {
    const known = new Set(records.flatMap(({ front }) => front ?? []));
    return new UnknownFronts(frontend, await frontend.otherFronts(known));
  }

  get names(): readonly string[] {
    return [...this.#numbers].map((number) => this.#frontend.nameOf(number));
  }

  async areNone(): Promise<boolean> {
    for (const number of this.#numbers) {
      if (await this.#frontend.isFrontGone(number)) this.#numbers.delete(number);
    }
    return this.#numbers.size === 0;
  }

  /** @param path of a device to attach @throws ControlError DEVICE_BUSY while there are such fronts */
  async assertNone(path: string): Promise<void> {
    if (await this.areNone()) return;
    const names = this.names.join(", ");
    const what = `${path} may be the original of ${names}, for which there is no usable record`;
    const hint =
      "Start the version of blksnapd that wrote the record; or give the front up: unmount it, then blksnapctl doctor --fix";
    throw new ControlError("DEVICE_BUSY", what, { hint });
  }
}
