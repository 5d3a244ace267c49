/**
 * Another program deletes fronts and images while the driver serves them, in the middle of whatever it does. Operations
 * on such a device succeed or fail by name, and everything else is served as before. When none is in progress its
 * snapshots are destroyed and it is detached, which has to succeed.
 *
 * ```
 *   deleted ─▶ operations go on for a while ─▶ none begins ─▶ the rest is ended ─▶ compared with the model
 *      └── the driver dies ─▶ the next one finds no front
 * ```
 */
import { constants } from "node:os";
import { ERRORS } from "@blksnap/api";
import { Random } from "@blksnap/sim-kernel";
import { DeviceMark, UblkState } from "@blksnap/ublk";
import type { Device, Image, SimSnapshot } from "./device.js";
import { reconcileWith, type Status } from "./reconcile.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

const ONE_IN = 90;
/** Steps during which operations begin after a deletion. */
const STEPS_MAX = 30;
/** Time in which the driver notices a deletion. */
const NOTICED_MS = 20;
const { ENODEV } = constants.errno;
const DEL_DEV_ASYNC = 0x80207514;
const COMMAND_WORDS = 20;

export class Deletions {
  readonly #sim: Simulation;
  readonly #isOn: boolean;
  readonly #random: Random;
  /** Devices without fronts, which are to be detached. */
  readonly #devices = new Set<Device>();
  readonly #images = new Set<Image>();
  /** Of these, those whose driver has died: a snapshot that was being created is resumed without them. */
  readonly #dropped = new Set<Device>();
  /** When it was deleted, by the simulation's counter of events. */
  readonly #deletedAt = new WeakMap<object, number>();
  /** Until the next comparison with the model. */
  #isDisturbed = false;
  #isEnding = false;
  #stepsLeft = 0;

  constructor(sim: Simulation, seed: number, isOn: boolean) {
    this.#sim = sim;
    this.#isOn = isOn;
    this.#random = new Random(seed ^ 0xde1);
  }

  /** Whether this front or image has been deleted, and its rest not been ended. */
  isHit(target: object): boolean {
    return this.#devices.has(target as Device) || this.#images.has(target as Image);
  }

  /** Whether its front was deleted before the driver's last death. */
  isDropped(device: Device): boolean {
    return this.#dropped.has(device);
  }

  /** Whether a request that its user made then may fail. */
  mayFail(target: object, askedAt: number): boolean {
    return (this.#deletedAt.get(target) ?? 0) > askedAt;
  }

  /** The outcome of an operation that has failed with this error is unknown. */
  excuses(error: unknown): boolean {
    const { code } = error as { code?: string };
    return this.#isDisturbed && !this.#isEnding && code !== undefined && code in ERRORS;
  }

  /** Operations may begin. */
  get mayAsk(): boolean {
    return !this.#isDisturbed || this.#stepsLeft > 0;
  }

  /** Something has been deleted, and its rest not been ended. */
  get isUnsettled(): boolean {
    return this.#isDisturbed;
  }

  step(): void {
    if (!this.#isOn) return;
    if (this.#stepsLeft > 0) this.#stepsLeft--;
    if (!this.mayAsk) this.settle();
    if (!this.#isEnding && this.#random.oneIn(ONE_IN)) this.#delete();
  }

  /** No further operation begins: ends the rest of what was deleted as soon as it can be. */
  settle(): void {
    if (!this.#isDisturbed || this.#isEnding) return;
    this.#stepsLeft = 0;
    if (this.#isIdle()) this.#sim.spawn(this.#end());
  }

  /** The driver has died: the next one finds no front. */
  afterDeath(): void {
    this.#dropped.clear();
    for (const device of this.#devices) {
      this.#dropped.add(device);
      device.attached = "unknown";
      device.mayBeNew = true;
    }
    for (const snapshot of this.#sim.snapshots) {
      const isHit = [...snapshot.images.values()].some((image) => this.#images.has(image));
      // Another device may have the number of a deleted image by now: images are looked at under their new names.
      if (isHit) snapshot.look = undefined;
      if (!snapshot.devices.some((device) => this.#devices.has(device))) continue;
      snapshot.mayLoseImages = true;
      snapshot.isGone = "unknown";
    }
    this.#forget();
  }

  #forget(): void {
    this.#devices.clear();
    this.#images.clear();
    this.#isDisturbed = false;
    this.#isEnding = false;
    this.#stepsLeft = 0;
  }

  #delete(): void {
    const { devices, machine, snapshots } = this.#sim;
    const all = [...machine.ublk.devices].filter(([, { state }]) => state !== UblkState.DEAD);
    const [id, ublk] = all[this.#random.below(Math.max(1, all.length))] ?? [];
    if (id === undefined || ublk === undefined) return;
    const path = `/dev/ublkb${id}`;
    const isFront = ublk.info.serverFlags === DeviceMark.FRONT;
    // The name of a front whose detach has not been answered may be another one's by now.
    const isOf = ({ front, user }: Device): boolean => front === path && user !== undefined;
    const device = isFront ? devices.find(isOf) : undefined;
    const image = this.#sim.images().find((one) => !isFront && one.path === path);
    // The operation that makes it has not been answered.
    if (device === undefined && image === undefined) return;
    this.#sim.tell(
      `another program deletes ${path}, the ${device === undefined ? "image" : `front of ${device.path}`}`,
    );
    this.#sim.count(isFront ? "front-deleted" : "image-deleted");
    this.#isDisturbed = true;
    this.#stepsLeft = this.#random.below(STEPS_MAX);
    for (const { devices: its, images, mayLose } of snapshots) {
      const isOfIt = device === undefined ? [...images.values()].includes(image as Image) : false;
      if (isOfIt || (device !== undefined && its.includes(device))) mayLose.add(ENODEV);
    }
    if (device !== undefined) this.#hit(device);
    else if (image !== undefined) this.#hitImage(image);
    if (this.#random.oneIn(2)) {
      ublk.stop(() => undefined);
      return;
    }
    const words = new Int32Array(COMMAND_WORDS);
    words[0] = id;
    const process = { isAlive: true } as never;
    machine.ublk.command({ op: DEL_DEV_ASYNC, words, process, done: () => undefined });
  }

  /** No operation is in progress, and no user's request to what is to be ended. */
  #isIdle(): boolean {
    const images = this.#snapshots.flatMap((snapshot) => [...snapshot.images.values()]);
    for (const image of images) image.user = undefined;
    const all = [...images, ...this.#devices];
    return this.#sim.pending.size === 0 && all.every(({ inFlight }) => inFlight === 0);
  }

  /** Those with something that was deleted. */
  get #snapshots(): SimSnapshot[] {
    return this.#sim.snapshots.filter(({ devices, images }) =>
      [...devices, ...images.values()].some((one) => this.isHit(one)),
    );
  }

  #hit(device: Device): void {
    this.#devices.add(device);
    this.#deletedAt.set(device, this.#sim.tick());
    device.user = undefined;
    device.front = undefined;
    for (const image of this.#sim.images()) if (image.device === device) this.#hitImage(image);
  }

  #hitImage(image: Image): void {
    this.#images.add(image);
    this.#deletedAt.set(image, this.#sim.tick());
    image.user = undefined;
  }

  async #end(): Promise<void> {
    this.#isEnding = true;
    // Until the driver has noticed, such a front counts as one in use.
    await new Promise((resolve) => setTimeout(resolve, NOTICED_MS));
    const { driver, snapshots } = this.#sim;
    this.#assertTold(await this.#status());
    for (const snapshot of this.#snapshots) {
      const { devices, id } = snapshot;
      const unheard = (): void => {
        snapshot.isGone = "unknown";
        snapshot.mayBeUnkept = true;
      };
      // One that was being created may be there, and is found by its devices.
      const its = id ?? (await this.#idOf(devices));
      const destroy = () => driver.snapshotDestroy(its as string);
      if (its !== undefined) await this.#sim.call(`destroy ${its}`, destroy, unheard);
      snapshots.splice(snapshots.indexOf(snapshot), 1);
    }
    for (const device of this.#devices) await this.#detach(device);
    const status = await this.#status();
    this.#sim.tell("what was deleted has ended");
    this.#forget();
    reconcileWith(this.#sim, status);
  }

  /** Whoever reads a snapshot's status learns that its image is gone. */
  #assertTold({ snapshots }: Status): void {
    for (const { id, images } of this.#sim.snapshots) {
      const found = snapshots.find((one) => one.id === id && one.taken);
      for (const image of images.values()) {
        if (this.#devices.has(image.device)) continue;
        const its = found?.devices.find(({ device }) => device === image.device.path);
        if (!this.#images.has(image) || its === undefined || its.error_code !== 0) continue;
        throw new Violation(`the image of ${its.device} was deleted, and status does not say so`);
      }
    }
  }

  async #idOf(devices: readonly Device[]): Promise<string | undefined> {
    const { snapshots } = await this.#status();
    const paths = devices.map(({ path }) => path);
    return snapshots.find((one) => one.devices.some(({ device }) => paths.includes(device)))?.id;
  }

  #status(): Promise<Status> {
    const { driver } = this.#sim;
    return this.#sim.call(
      "status",
      () => driver.status(),
      () => undefined,
    );
  }

  async #detach(device: Device): Promise<void> {
    const { driver } = this.#sim;
    const { path } = device;
    const unheard = (): void => {
      device.attached = "unknown";
    };
    const { trackers } = await this.#status();
    const isThere = trackers.some((tracker) => tracker.device === path);
    if (isThere) await this.#sim.call(`detach ${path}`, () => driver.detach(path), unheard);
    device.attached = "no";
    device.mayBeNew = true;
    if (device.persistent === "yes") device.persistent = "unknown";
    device.mapLeft();
    device.volume.forgetDiscards();
    device.volume.check(0, device.disk.bytes, "the original after its front was deleted");
  }
}
