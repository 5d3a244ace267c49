/**
 * Originals that become larger at random moments. A front follows while its users write, unless a snapshot has the
 * device; its map begins a new generation then, and at no other time. Images keep their sizes.
 */
import { Random } from "@blksnap/sim-kernel";
import type { Device, Image } from "./device.js";
import { growthLooks } from "./load.js";
import { DISK_SECTORS, GROWN_MAX_SECTORS } from "./settings.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES } from "./volume.js";

type Status = Awaited<ReturnType<Simulation["driver"]["status"]>>;
type TrackerStatus = Status["trackers"][number];

const BEGIN_ONE_IN = 60;
const GROWN_SECTORS_MAX = 160;
const BLOCK_SECTORS = 8;
/** UBLK_F_UPDATE_SIZE */
const UPDATE_SIZE = 0x400;
/** Looks after which a front has grown, if nothing is against it. */
const LOOKS = 3;
/** One step in so many skips time up to the next look, or an instant before it, when requests are in flight. */
const SKIP_ONE_IN = 8;
const EARLY_MAX_MS = 0.5;
/** Longer than a growth that has failed waits for the next attempt. */
const SETTLED_MS = 130_000;

export class Growths {
  readonly random: Random;
  readonly #sim: Simulation;
  readonly #isOn: boolean;
  readonly #intervalMs: number;
  /** Looks until which time is skipped. */
  #looks = 0;
  /** Largest size of each front, by its user. */
  readonly #sizes = new WeakMap<object, number>();

  constructor(sim: Simulation, seed: number, isOn: boolean) {
    this.#sim = sim;
    this.#isOn = isOn;
    this.random = new Random(seed ^ 0x6c0);
    this.#intervalMs = growthLooks.intervalMs;
    growthLooks.now = () => sim.machine.nowMs;
    growthLooks.atMs = 0;
  }

  get #canFollow(): boolean {
    return (this.#sim.machine.ublkKernel.features & UPDATE_SIZE) !== 0;
  }

  /** Grows an original, or not. Resolves when time has been skipped that it takes until that is noticed. */
  async step(): Promise<void> {
    if (!this.#isOn) return;
    const { devices } = this.#sim;
    if (this.random.oneIn(BEGIN_ONE_IN))
      this.#grow(devices[this.random.below(devices.length)] as Device);
    if (this.#looks === 0 || !this.random.oneIn(SKIP_ONE_IN)) return;
    this.#looks--;
    const leftMs = growthLooks.atMs + this.#intervalMs - this.#sim.machine.nowMs;
    const skippedMs = leftMs - EARLY_MAX_MS * (this.random.below(4) / 4);
    if (skippedMs > 0) await this.#sim.advance(skippedMs);
    this.#sim.assertAll();
  }

  #grow({ path, disk }: Device): void {
    const sectors = disk.capacityBytes / SECTOR_BYTES;
    const isOdd = this.random.oneIn(4);
    const by = 1 + this.random.below(GROWN_SECTORS_MAX);
    const grown = sectors + (isOdd ? by : by * BLOCK_SECTORS);
    if (grown > GROWN_MAX_SECTORS) return;
    disk.grow(grown * SECTOR_BYTES);
    this.#looks = LOOKS;
    this.#sim.count("growth");
    this.#sim.tell(`${path} grows from ${sectors} to ${grown} sectors`);
    this.#sim.arming.withinGrowth();
  }

  /** Whether its map may begin a new generation now, which the model has not seen so far. */
  mayRenew({ disk, mapBytes }: Device): boolean {
    return disk.capacityBytes > mapBytes;
  }

  /** @throws Violation if users see a size that they should not */
  assertSizes(): void {
    if (!this.#isOn) return;
    for (const { user, disk, path } of this.#sim.devices) {
      if (user === undefined) continue;
      const { capacityBytes } = user.device;
      const before = this.#sizes.get(user) ?? DISK_SECTORS * SECTOR_BYTES;
      if (capacityBytes < before || capacityBytes > disk.capacityBytes) {
        const sizes = `${before}, now ${capacityBytes}, of ${disk.capacityBytes} bytes`;
        throw new Violation(`the front of ${path} was of ${sizes}`);
      }
      if (capacityBytes > before && this.#sizes.has(user)) this.#sim.count("grown");
      this.#sizes.set(user, capacityBytes);
    }
    for (const image of this.#sim.images()) if (image.user !== undefined) this.noteImage(image);
  }

  /** An image has the size of its device at the take. @throws Violation */
  noteImage(image: Image): void {
    const { user, device } = image;
    const sectors = (user?.device.capacityBytes ?? 0) / SECTOR_BYTES;
    if (image.sectors === 0) image.sectors = sectors;
    const isOf = device.user === undefined || sectors <= device.sectors;
    if (image.sectors === sectors && isOf && sectors >= DISK_SECTORS) return;
    const sizes = `${image.sectors} sectors, now ${sectors}, the front ${device.sectors}`;
    throw new Violation(`the image of ${device.path} was of ${sizes}`);
  }

  /** @throws Violation: users have more than is tracked, or more is tracked than there is */
  assertStatus({ trackers }: Status): void {
    if (!this.#isOn) return;
    for (const tracker of trackers) {
      const { device, capacity_bytes, original_capacity_bytes, cbt } = tracker;
      const sizes = [capacity_bytes, cbt.capacity_bytes, original_capacity_bytes];
      if (sizes.some((size, index) => size > (sizes[index + 1] ?? size))) {
        throw new Violation(`${device}: ${sizes.join(", ")} bytes of front, map and original`);
      }
    }
  }

  /** Nothing happens any more: all fronts have the sizes of their originals, or it is said why not. @throws Violation */
  async finish(): Promise<void> {
    if (!this.#isOn) return;
    await this.#sim.advance(SETTLED_MS);
    const { driver, machine } = this.#sim;
    const status = (await machine.run(driver.status())) as Status;
    this.assertStatus(status);
    for (const tracker of status.trackers) this.#assertFollows(tracker);
  }

  #assertFollows(tracker: TrackerStatus): void {
    const { device, capacity_bytes, capacity_why, original_capacity_bytes } = tracker;
    const isSame = capacity_bytes === original_capacity_bytes;
    if (isSame && capacity_why === null) return;
    const has = this.#sim.snapshots.some(({ devices }) =>
      devices.some(({ path }) => path === device),
    );
    const expected = this.#canFollow ? /when snapshot \S+ is destroyed/ : /6\.16/;
    const isExcused = has || !this.#canFollow;
    if (!isSame && isExcused && expected.test(capacity_why ?? "")) return;
    const sizes = `${capacity_bytes} bytes, the original ${original_capacity_bytes}`;
    throw new Violation(`the front of ${device} has ${sizes}: ${capacity_why}`);
  }
}
