/**
 * Operations of the API while a medium does not answer. An operation that does not need that medium works as usual. Any
 * other ends within the bounds, and may fail by name: it can be repeated when the medium answers, and succeeds.
 */
import { ERRORS } from "@blksnap/api";
import type { Device, SimSnapshot } from "./device.js";
import { assertEvents } from "./losses.js";
import { settleDevice } from "./reconcile.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES } from "./volume.js";

export class HangApi {
  readonly #sim: Simulation;
  /** Devices whose detach has failed. */
  readonly #devices = new Set<Device>();
  readonly #snapshots = new Set<SimSnapshot>();

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  async start(): Promise<void> {
    const { random } = this.#sim;
    const choices = this.#choices();
    await choices[random.below(choices.length)]?.();
  }

  /** Media answer again: checks or repeats what has failed. */
  async settle(): Promise<void> {
    if (this.#sim.pending.size > 0) return;
    for (const device of this.#devices) await settleDevice(this.#sim, device);
    this.#devices.clear();
    const snapshots = [...this.#snapshots];
    this.#snapshots.clear();
    for (const snapshot of snapshots) this.#sim.spawn(this.#destroy(snapshot, false));
  }

  /** The driver has died: the next one decides. */
  forget(): void {
    this.#devices.clear();
    this.#snapshots.clear();
  }

  #choices(): (() => Promise<void>)[] {
    const { api, devices, snapshots } = this.#sim;
    const choices: (() => Promise<void>)[] = [() => api.status()];
    for (const device of devices) {
      if (device.isInHand || device.attached !== "yes") continue;
      choices.push(
        () => this.#info(device),
        () => this.#markDirty(device),
      );
      const isMember = snapshots.some((one) => one.devices.includes(device));
      if (!isMember && device.inFlight === 0) choices.push(() => this.#detach(device));
    }
    for (const snapshot of snapshots) {
      if (snapshot.isInHand || snapshot.isGone !== "no") continue;
      if (snapshot.devices.some(({ isInHand }) => isInHand)) continue;
      choices.push(() => this.#events(snapshot));
      const isIdle = [...snapshot.images.values()].every(({ inFlight }) => inFlight === 0);
      if (isIdle) choices.push(() => this.#destroy(snapshot, true));
    }
    return choices;
  }

  async #info(device: Device): Promise<void> {
    const { driver, growths } = this.#sim;
    const { generation } = device;
    device.isInHand = true;
    const put = () => {
      device.isInHand = false;
    };
    const info = await this.#sim.call(
      `info ${device.path}`,
      async () => {
        await driver.trackerStatus(device.path);
        return driver.cbtInfo(device.path);
      },
      put,
    );
    put();
    if (info.generation_id !== generation && !growths.mayRenew(device)) {
      throw new Violation(`${device.path} has another generation, and nothing has ended it`);
    }
    device.noteMap(info);
  }

  async #markDirty(device: Device): Promise<void> {
    const { driver, media } = this.#sim;
    const askedAt = this.#sim.tick();
    const { generation } = device;
    device.isInHand = true;
    const put = () => {
      device.isInHand = false;
    };
    const { sectors } = device;
    const all = [{ offset_bytes: 0, length_bytes: sectors * SECTOR_BYTES }];
    // The original itself is not accessed.
    const patienceMs = media.patienceMs({ devices: device.persistent === "no" ? [] : [device] });
    await this.#sim.call(
      `markDirty ${device.path}`,
      () => driver.markDirty(device.path, all as never),
      put,
      patienceMs,
    );
    put();
    if (device.generation === generation) device.writtenAt.fill(askedAt, 0, sectors);
  }

  async #events(snapshot: SimSnapshot): Promise<void> {
    const { driver } = this.#sim;
    snapshot.isInHand = true;
    const put = () => {
      snapshot.isInHand = false;
    };
    const list = () => driver.listEvents(snapshot.id as string);
    const events = await this.#sim.call("events", list, put);
    put();
    assertEvents(snapshot, events);
  }

  async #detach(device: Device): Promise<void> {
    const { driver, media } = this.#sim;
    device.isInHand = true;
    device.closeUser();
    device.mayBeNew = true;
    device.attached = "unknown";
    const patienceMs = media.patienceMs({ devices: [device] });
    const detach = () => driver.detach(device.path);
    try {
      await this.#sim.call(`detach ${device.path}`, detach, () => undefined, patienceMs);
      this.#sim.count("detached-in-hang");
    } catch (error) {
      this.#failed(error);
    }
    this.#devices.add(device);
  }

  /** @param mayFail a medium hangs */
  async #destroy(snapshot: SimSnapshot, mayFail: boolean): Promise<void> {
    const { driver, media, snapshots } = this.#sim;
    snapshot.isInHand = true;
    snapshot.isGone = "unknown";
    snapshot.mayBeUnkept = true;
    for (const image of snapshot.images.values()) {
      image.user?.close();
      image.user = undefined;
    }
    const { devices, store } = snapshot;
    const patienceMs = media.patienceMs({ devices, store });
    const destroy = () => driver.snapshotDestroy(snapshot.id as string);
    try {
      await this.#sim.call(`destroy ${snapshot.id}`, destroy, () => undefined, patienceMs);
      snapshots.splice(snapshots.indexOf(snapshot), 1);
      snapshot.isInHand = false;
      this.#sim.count("destroyed-in-hang");
    } catch (error) {
      if (!mayFail) throw error;
      this.#failed(error);
      if (!(await this.#isWhole(snapshot))) this.#snapshots.add(snapshot);
    }
  }

  /** An end that could not be recorded has not begun: its images are as before. */
  async #isWhole(snapshot: SimSnapshot): Promise<boolean> {
    const { driver, machine } = this.#sim;
    const { snapshots } = await this.#sim.call(
      "status",
      () => driver.status(),
      () => undefined,
    );
    const found = snapshots.find(({ id }) => id === snapshot.id);
    if (found?.taken !== true) return false;
    for (const image of snapshot.images.values()) {
      const { path } = image.device;
      const its = found.devices.find(({ device }) => device === path);
      if (its === undefined || its.image !== image.path) {
        throw new Violation(`the image of ${path} has changed, and nothing was destroyed`);
      }
      if (image.path !== undefined) image.user = machine.user(image.path);
    }
    snapshot.isInHand = false;
    snapshot.isGone = "no";
    this.#sim.count("not-destroyed");
    return true;
  }

  /** @throws errors that are not the API's */
  #failed(error: unknown): void {
    const { code } = error as { code?: string };
    if (code === undefined || !(code in ERRORS)) throw error;
    this.#sim.count("failed-in-hang");
  }
}
