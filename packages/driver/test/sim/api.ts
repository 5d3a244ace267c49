/** Random operations of the API, and checks of what each answered one must have done. */
import type { Device, Image, SimSnapshot } from "./device.js";
import { assertDiff } from "./diff.js";
import { assertOneInstant } from "./instant.js";
import { assertEvents, noteLosses, stampImages } from "./losses.js";
import { chooseRoom } from "./room.js";
import { BLOCK_STORE, isOnDisk, KEPT_STORE } from "./settings.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { SECTOR_BYTES } from "./volume.js";

const STORES = [BLOCK_STORE, KEPT_STORE, "memory:"] as const;

export class Api {
  readonly #sim: Simulation;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  /** Starts one operation that is possible now. */
  async start(): Promise<void> {
    const { random } = this.#sim;
    const choices = this.#choices();
    const choice = choices[random.below(choices.length)];
    await choice?.();
  }

  #choices(): (() => Promise<void>)[] {
    const { devices, snapshots } = this.#sim;
    const choices: (() => Promise<void>)[] = [() => this.status()];
    const free = devices.filter((device) => !device.isInHand && !this.#isMember(device));
    for (const device of devices) {
      if (device.isInHand) continue;
      if (device.attached === "no") choices.push(() => this.#attach(device));
      else
        choices.push(
          () => this.#markDirty(device),
          () => assertDiff(this.#sim, device),
        );
    }
    for (const device of free) {
      const canGo = device.attached === "yes" && device.inFlight === 0;
      if (canGo && this.#sim.random.below(3) === 0) choices.push(() => this.#detach(device));
    }
    if (free.length > 0) {
      const count = 1 + this.#sim.random.below(free.length);
      choices.push(() => this.#create(free.slice(0, count)));
    }
    for (const snapshot of snapshots) {
      if (snapshot.isInHand || snapshot.devices.some(({ isInHand }) => isInHand)) continue;
      const isIdle = [...snapshot.images.values()].every(({ inFlight }) => inFlight === 0);
      if (snapshot.taken === "no") {
        if (snapshot.devices.length > 0) choices.push(() => this.#take(snapshot));
        const next = free.find((device) => !snapshot.isPersistent || this.#mayPersist([device]));
        if (next !== undefined) choices.push(() => this.#add(snapshot, next));
      }
      if (isIdle && this.#sim.random.below(3) === 0) choices.push(() => this.#destroy(snapshot));
      choices.push(() => this.#events(snapshot));
    }
    return choices;
  }

  #isMember(device: Device): boolean {
    return this.#sim.snapshots.some(({ devices }) => devices.includes(device));
  }

  async status(): Promise<void> {
    const asked = stampImages(this.#sim);
    const status = await this.#sim.call("status", () => this.#sim.driver.status(), nothing);
    if (status.waiting.length > 0) throw new Violation("a front waits, and nothing is wrong");
    noteLosses(this.#sim, status, asked);
    this.#sim.growths.assertStatus(status);
  }

  async #events(snapshot: SimSnapshot): Promise<void> {
    const { driver } = this.#sim;
    snapshot.isInHand = true;
    const put = () => {
      snapshot.isInHand = false;
    };
    const events = await this.#sim.call(
      "events",
      () => driver.listEvents(snapshot.id as string),
      put,
    );
    put();
    assertEvents(snapshot, events);
  }

  async #attach(device: Device): Promise<void> {
    const { driver } = this.#sim;
    device.isInHand = true;
    const persistent = this.#sim.random.below(2) === 0;
    if (persistent) device.persistent = "unknown";
    const answer = await this.#sim.call(
      `attach ${device.path}${persistent ? " persistent" : ""}`,
      () => driver.attach(device.path, { persistent }),
      () => {
        device.attached = "unknown";
      },
    );
    // An earlier record makes it persistent, too.
    const mayBeEither = !persistent && device.persistent !== "no";
    if (!mayBeEither && answer.persistent !== persistent) {
      throw new Violation(`${device.path} is ${persistent ? "not " : ""}persistent`);
    }
    if (answer.persistent) device.persistent = "yes";
    this.#attached(device, answer.front);
    const { generation } = device;
    await this.#noteGeneration(device);
    device.isInHand = false;
    const isContinued = generation !== undefined && device.generation === generation;
    if (isContinued && device.takes.length > 0) await this.prove(device);
  }

  #attached(device: Device, front: string): void {
    if (device.attached === "yes" && device.front === front) return;
    if (this.#sim.deletions.isHit(device)) return;
    device.attached = "yes";
    device.front = front;
    device.user = this.#sim.machine.user(front);
  }

  /** Notes what the map promises from now on. */
  async #noteGeneration(device: Device): Promise<void> {
    const { driver } = this.#sim;
    const what = `cbtInfo ${device.path}`;
    const info = await this.#sim.call(what, () => driver.cbtInfo(device.path), nothing);
    device.noteMap(info);
  }

  async #detach(device: Device): Promise<void> {
    const { driver } = this.#sim;
    device.isInHand = true;
    device.closeUser();
    await this.#sim.call(
      `detach ${device.path}`,
      () => driver.detach(device.path),
      () => {
        device.attached = "unknown";
      },
    );
    device.attached = "no";
    // Its record stays.
    if (device.persistent === "yes") device.persistent = "unknown";
    device.front = undefined;
    device.mapLeft();
    device.volume.check(0, device.disk.bytes, `the original after detach`);
    device.volume.forgetDiscards();
    device.isInHand = false;
  }

  /** The map has survived a time without a front: a new take and a diff show what it knows. */
  async prove(device: Device): Promise<void> {
    if (this.#isMember(device)) return;
    const [since] = device.takes;
    await this.#create([device]);
    const snapshot = this.#sim.snapshots.at(-1);
    if (snapshot?.devices[0] !== device) return;
    await this.#take(snapshot);
    this.#sim.count("proved");
    if (since !== undefined) await assertDiff(this.#sim, device, since);
  }

  async #create(devices: Device[]): Promise<void> {
    const { driver, random, snapshots, hasFirstWrites, keptStore } = this.#sim;
    const isPersistent = !hasFirstWrites && this.#mayPersist(devices) && random.below(2) === 0;
    const store = isPersistent ? keptStore : (STORES[random.below(STORES.length)] as string);
    const newOnes = devices.filter(({ attached }) => attached === "no");
    // Unknown: whether they are attached, and in which generation.
    const unheard = (): void => {
      for (const device of newOnes) device.attached = "unknown";
    };
    const room = chooseRoom(this.#sim);
    const snapshot: SimSnapshot = {
      id: undefined,
      devices,
      taken: "no",
      isGone: "unknown",
      isInHand: true,
      isPersistent,
      mayLoseImages: false,
      ...room.expected,
      mayBeUnkept: false,
      images: new Map(),
      isTaking: false,
      isLookedAt: false,
      look: undefined,
      window: [],
    };
    for (const device of devices) {
      device.isInHand = true;
      if (isPersistent && device.attached === "no") device.persistent = "unknown";
    }
    if (isOnDisk(store) && snapshots.some(({ store: its }) => isOnDisk(its))) return put();
    snapshot.store = store;
    snapshots.push(snapshot);
    const paths = devices.map(({ path }) => path);
    const { id } = await this.#sim.call(
      `create ${paths.join(" ")} ${store}${isPersistent ? " persistent" : ""}${room.name}`,
      () =>
        driver.snapshotCreate({
          devices: paths,
          stores: [store],
          ...room.asked,
          persistent: isPersistent,
        }),
      unheard,
    );
    snapshot.id = id;
    snapshot.isGone = "no";
    for (const device of devices) device.attached = "yes";
    const status = await this.#sim.call("status", () => driver.status(), unheard);
    for (const device of devices) {
      const tracker = status.trackers.find(({ device: path }) => path === device.path);
      if (tracker === undefined) throw new Violation(`${device.path} is not attached by create`);
      this.#attached(device, tracker.front);
      if (isPersistent) device.persistent = "yes";
      device.noteMap(tracker.cbt);
    }
    put();

    function put(): void {
      snapshot.isInHand = false;
      for (const device of devices) device.isInHand = false;
    }
  }

  /** Trackers of a persistent snapshot are persistent, or attached by it. */
  #mayPersist(devices: readonly Device[]): boolean {
    return devices.every(({ attached, persistent }) => attached === "no" || persistent === "yes");
  }

  async #add(snapshot: SimSnapshot, device: Device): Promise<void> {
    const { driver } = this.#sim;
    const before = device.attached;
    snapshot.isInHand = true;
    device.isInHand = true;
    if (snapshot.isPersistent && before === "no") device.persistent = "unknown";
    snapshot.devices.push(device);
    const answer = await this.#sim.call(
      `add ${device.path}`,
      () => driver.snapshotAdd(snapshot.id as string, device.path),
      () => {
        snapshot.added = device;
        if (before === "no") device.attached = "unknown";
      },
    );
    this.#attached(device, answer.front);
    if (snapshot.isPersistent) device.persistent = "yes";
    await this.#noteGeneration(device);
    device.isInHand = false;
    snapshot.isInHand = false;
  }

  async #take(snapshot: SimSnapshot): Promise<void> {
    const { driver } = this.#sim;
    const { devices, images, window } = snapshot;
    snapshot.isInHand = true;
    for (const device of devices) device.isInHand = true;
    window.length = 0;
    for (const device of devices) {
      const volume = device.volume.clone(`the image of ${device.path}`);
      images.set(device, {
        device,
        volume,
        sectors: 0,
        path: undefined,
        user: undefined,
        inFlight: 0,
      });
      window.push(...device.writes);
    }
    const frozen = devices.map(({ writtenAt }) => writtenAt.slice());
    const options = this.#sim.fileSystems.takeBegins(devices);
    snapshot.isTaking = true;
    snapshot.isLookedAt = false;
    const askedAt = this.#sim.tick();
    const answer = await this.#sim
      .call(
        `take of ${devices.map(({ path }) => path).join(" ")}`,
        () => driver.snapshotTake(snapshot.id as string, options),
        () => {
          snapshot.taken = "unknown";
          snapshot.isTaking = false;
          // The number may be used already without anybody knowing.
          for (const device of devices) {
            device.takes = [];
            device.frozen = undefined;
          }
        },
      )
      .catch((error: Error) => this.#sim.fileSystems.notTaken(snapshot, error));
    if (answer === undefined) return;
    snapshot.isTaking = false;
    this.#sim.fileSystems.assertTaken(devices);
    snapshot.taken = "yes";
    const answeredAt = this.#sim.tick();
    for (const [index, device] of devices.entries()) {
      const info = await this.#sim.call("cbtInfo", () => driver.cbtInfo(device.path), nothing);
      // It grows before its take.
      device.noteMap(info);
      device.frozen = frozen[index] as Float64Array;
      device.takes.push({ number: info.changes_number, askedAt, answeredAt });
    }
    for (const device of devices) {
      const found = answer.images.find(({ device: path }) => path === device.path);
      if (found === undefined) throw new Violation(`no image of ${device.path}`);
      const image = images.get(device) as Image;
      image.path = found.image;
    }
    for (const device of devices) device.isInHand = false;
    await this.look(snapshot);
    snapshot.isInHand = false;
  }

  /** Checks all of its images before users write to them. A death of the driver only delays that. */
  async look(snapshot: SimSnapshot): Promise<void> {
    if (snapshot.look !== undefined) return;
    const look = {};
    snapshot.look = look;
    const images = [...snapshot.images.values()];
    const { deletions, io } = this.#sim;
    for (const image of images) image.inFlight++;
    for (const image of images) {
      const isLost = snapshot.images.get(image.device) !== image;
      if (isLost || snapshot.look !== look || deletions.isHit(image)) continue;
      image.user ??= this.#sim.machine.user(image.path as string);
      this.#sim.growths.noteImage(image);
      await io.readWhole(image, "after take");
    }
    for (const image of images) image.inFlight--;
    if (snapshot.look !== look || images.some((image) => deletions.isHit(image))) return;
    assertOneInstant(snapshot);
    snapshot.look = undefined;
    snapshot.isLookedAt = true;
  }

  async #destroy(snapshot: SimSnapshot): Promise<void> {
    const { driver, snapshots } = this.#sim;
    snapshot.isInHand = true;
    for (const image of snapshot.images.values()) {
      image.user?.close();
      image.user = undefined;
    }
    await this.#sim.call(
      `destroy ${snapshot.id}`,
      () => driver.snapshotDestroy(snapshot.id as string),
      () => {
        snapshot.isGone = "unknown";
        // The medium may have recorded it already.
        snapshot.mayBeUnkept = true;
      },
    );
    snapshots.splice(snapshots.indexOf(snapshot), 1);
  }

  async #markDirty(device: Device): Promise<void> {
    const { driver, random } = this.#sim;
    const { sectors } = device;
    const offset = SECTOR_BYTES * random.below(sectors);
    const length = SECTOR_BYTES * Math.min(sectors - offset / SECTOR_BYTES, 1 + random.below(256));
    const askedAt = this.#sim.tick();
    const { generation } = device;
    device.isInHand = true;
    const put = () => {
      device.isInHand = false;
    };
    const ranges = [{ offset_bytes: offset, length_bytes: length }];
    await this.#sim.call(
      `markDirty ${device.path}`,
      () => driver.markDirty(device.path, ranges as never),
      put,
    );
    put();
    if (device.generation !== generation) return;
    device.writtenAt.fill(askedAt, offset / SECTOR_BYTES, (offset + length) / SECTOR_BYTES);
  }
}

function nothing(): void {}
