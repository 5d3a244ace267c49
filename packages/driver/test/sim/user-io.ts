/** Users of fronts and images: they must read what they wrote. */
import type { SimUser } from "@blksnap/sim-kernel";
import type { Device, Image, WindowWrite } from "./device.js";
import { assertNotLost, readFailed, snapshotOf } from "./losses.js";
import { mayRefuse } from "./room.js";
import { IO_SECTORS_MAX } from "./settings.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";
import { fill, type PendingWrite, SECTOR_BYTES, type Volume, ZERO } from "./volume.js";

const IN_FLIGHT_MAX = 12;
const CHUNK_SECTORS = 64;
const DISCARD_CHUNKS_MAX = 4;
/** Writes of data to fronts that are to be on the medium when they end. */
const DURABLE_ONE_IN = 4;

/** An unanswered request. */
interface Request {
  readonly what: string;
  readonly sinceMs: number;
  readonly target: Target;
}

interface Target {
  readonly volume: Volume;
  user: SimUser | undefined;
  inFlight: number;
  /** Its size at present. */
  readonly sectors: number;
}

export class UserIo {
  readonly #sim: Simulation;
  readonly #requests = new Set<Request>();
  #lastValue = 0;
  /** Counts power cuts: requests from before one are never answered. */
  #power = 0;

  constructor(sim: Simulation) {
    this.#sim = sim;
  }

  get inFlight(): number {
    const { devices } = this.#sim;
    return [...devices, ...this.#sim.images()].reduce((sum, { inFlight }) => sum + inFlight, 0);
  }

  /** When the oldest unanswered request was made; Infinity if there is none. */
  get oldestMs(): number {
    for (const { sinceMs } of this.#requests) return sinceMs;
    return Number.POSITIVE_INFINITY;
  }

  /** @throws Violation if a request takes longer than this */
  assertNoneHangs(limitMs: number): void {
    for (const { what, sinceMs } of this.#requests) {
      if (this.#sim.machine.nowMs - sinceMs <= limitMs) return;
      throw new Violation(`${what} has no answer`);
    }
  }

  /** @throws Violation if a request takes longer than its device may, without the time in which no driver served */
  assertServed(limitMs: (device: Device) => number): void {
    const { machine, servesSinceMs } = this.#sim;
    for (const { what, sinceMs, target } of this.#requests) {
      const waitedMs = machine.nowMs - Math.max(sinceMs, servesSinceMs);
      const device = isImage(target) ? target.device : (target as Device);
      if (waitedMs > limitMs(device)) throw new Violation(`${what} waits for a medium that hangs`);
    }
  }

  /** A power cut: all users are gone. */
  forget(): void {
    this.#power++;
    this.#requests.clear();
  }

  /** Unanswered requests, the oldest first. */
  get waiting(): readonly string[] {
    return [...this.#requests].map(({ what, sinceMs }) => `${what} since ${sinceMs.toFixed(1)} ms`);
  }

  #answered<Value>(what: string, target: Target, work: Promise<Value> | undefined): Promise<Value> {
    const { nowMs: sinceMs } = this.#sim.machine;
    const request = { what: `${what} of ${target.volume.name}`, sinceMs, target };
    const power = this.#power;
    this.#requests.add(request);
    target.inFlight++;
    this.#sim.count(what.split(" ")[0] as string);
    const end = (): void => {
      this.#requests.delete(request);
      target.inFlight--;
      this.#sim.operations++;
    };
    return new Promise<Value>((resolve, reject) => {
      const ifThere = <Answer>(tell: (answer: Answer) => void) => {
        return (answer: Answer): void => {
          if (power !== this.#power) return;
          end();
          tell(answer);
        };
      };
      (work as Promise<Value>).then(ifThere(resolve), ifThere(reject));
    });
  }

  /** Starts one request of a user, if there is any user. */
  start(): void {
    const sim = this.#sim;
    if (this.inFlight >= IN_FLIGHT_MAX) return;
    const images = sim.snapshots
      .filter(({ isLookedAt }) => isLookedAt)
      .flatMap(({ images: its }) => [...its.values()])
      .filter(({ user }) => user !== undefined);
    const image = images[sim.random.below(Math.max(1, images.length))];
    if (image !== undefined && sim.random.below(3) === 0) {
      sim.spawn(this.#onImage(image));
      return;
    }
    const device = sim.devices[sim.random.below(sim.devices.length)] as Device;
    if (device.user === undefined) return;
    sim.spawn(this.#onFront(device));
  }

  /** Reads everything, sector by sector. */
  async readAll(): Promise<void> {
    const targets = [...this.#sim.devices, ...this.#sim.images()];
    await Promise.all(
      targets
        .filter(({ user }) => user !== undefined)
        .map((target) => this.readWhole(target, "at the end")),
    );
  }

  async readWhole(target: Target, where: string): Promise<void> {
    const { sectors } = target;
    for (let at = 0; at < sectors; at += IO_SECTORS_MAX) {
      await this.#read(target, at, Math.min(IO_SECTORS_MAX, sectors - at), where);
    }
  }

  /** A foreign program writes to an untracked original while there is no driver. */
  async writePast(device: Device): Promise<void> {
    const { machine } = this.#sim;
    const { volume } = device;
    const [first, count] = this.#range(device.disk.capacityBytes / SECTOR_BYTES);
    const write = this.#newWrite(first, count, false);
    const askedAt = this.#sim.tick();
    const bytes = new Uint8Array(count * SECTOR_BYTES);
    fill(bytes, first, write.value);
    const user = machine.user(device.path);
    volume.begin(write);
    await machine.run(user.write(first * SECTOR_BYTES, bytes, true));
    volume.end(write);
    volume.becomeDurable(write);
    user.close();
    device.writtenAt.fill(askedAt, first, first + count);
    this.#sim.count("past");
    this.#sim.tell(`write ${write.value} past the front at ${first} of ${device.path}`);
  }

  async #onFront(device: Device): Promise<void> {
    const { random } = this.#sim;
    const kind = random.below(20);
    if (kind < 6) return this.#read(device, ...this.#range(device.sectors), "a front");
    const { fileSystems } = this.#sim;
    if (fileSystems.isHeld(device)) {
      await this.#answered("thaw", device, fileSystems.untilThawed(device));
      if (device.user === undefined) return;
    }
    if (kind < 8) return this.#flush(device);
    if (kind < 10) return this.#discardFront(device);
    const isZero = kind < 12;
    let [first, count] = this.#range(device.sectors);
    if (!isZero && this.#sim.hasSequences) {
      [first, count] = device.sequence.next(random, [first, count]);
    }
    if (device.volume.isBusy(first, count)) return;
    const write = this.#newWrite(first, count, isZero);
    const askedAt = this.#sim.tick();
    const entry = { device, ...write, askedAt, answeredAt: Number.POSITIVE_INFINITY };
    device.writes.add(entry);
    this.#mayBeOnImages(entry);
    const done = await this.#write(device, write, isZero);
    if (!done) return this.#failed("a write", entry);
    entry.answeredAt = this.#sim.tick();
    device.writes.delete(entry);
    device.writtenAt.fill(askedAt, first, first + count);
  }

  /** A front fails if its original does. @throws Violation */
  #failed(what: string, entry: WindowWrite): void {
    const { device, firstSector, sectors, askedAt } = entry;
    device.writes.delete(entry);
    if (this.#sim.deletions.mayFail(device, askedAt)) return;
    const isRefused = mayRefuse(this.#sim, device);
    if (isRefused) this.#sim.count("refused");
    else if (!this.#sim.media.mayFail(device, false, firstSector, sectors, askedAt)) {
      throw new Violation(`${what} to the front of ${device.path} failed`);
    }
    this.#sim.count("failed");
  }

  /** Takes in progress may include it or not. */
  #mayBeOnImages(entry: WindowWrite): void {
    const { device, firstSector, sectors, value } = entry;
    for (const snapshot of this.#sim.snapshots) {
      if (!snapshot.isTaking || !snapshot.devices.includes(device)) continue;
      if (this.#sim.fileSystems.isFrozen(device)) continue;
      snapshot.window.push(entry);
      const image = snapshot.images.get(device);
      for (let at = firstSector; at < firstSector + sectors; at++) {
        image?.volume.allow(at, value);
        image?.volume.mayBeLost(at, value);
      }
    }
  }

  /** With a snapshot, blocks that it needs are kept for now; without one, the discard changes all that it covers. */
  async #discardFront(device: Device): Promise<void> {
    const [first, count] = this.#discardRange(device.sectors);
    if (device.volume.isBusy(first, count)) return;
    const write = this.#newWrite(first, count, true);
    const askedAt = this.#sim.tick();
    const entry = { device, ...write, askedAt, answeredAt: Number.POSITIVE_INFINITY };
    this.#mayBeOnImages(entry);
    const isCopied = (): boolean => this.#sim.snapshots.some((one) => one.devices.includes(device));
    const mayBeKept = isCopied();
    device.writes.add(entry);
    const done = await this.#discard(device, write, true);
    if (!done) return this.#failed("a discard", entry);
    device.writes.delete(entry);
    if (!mayBeKept && !isCopied()) device.writtenAt.fill(askedAt, first, first + count);
  }

  async #onImage(image: Image): Promise<void> {
    const { random } = this.#sim;
    const kind = random.below(12);
    const isDiscard = kind === 0;
    const { sectors } = image;
    const [first, count] = isDiscard ? this.#discardRange(sectors) : this.#range(sectors);
    if (kind > 3) return this.#read(image, first, count, "an image");
    if (image.volume.isBusy(first, count)) return;
    const write = this.#newWrite(first, count, kind < 2);
    const askedAt = this.#sim.tick();
    const mayFail = () => this.#sim.deletions.mayFail(image, askedAt);
    if (!isDiscard) {
      const done = await this.#write(image, write, kind === 1);
      const snapshot = snapshotOf(this.#sim, image);
      if (done || mayFail() || snapshot === undefined || snapshot.mayLose.size > 0) return;
      if (snapshot.mayBeFull) return;
      throw new Violation(`a write to ${image.volume.name} failed`);
    } else if (!(await this.#discard(image, write, false)) && !mayFail()) {
      throw new Violation(`a discard of ${image.volume.name} failed`);
    }
  }

  #newWrite(firstSector: number, sectors: number, isZero: boolean): PendingWrite {
    return { firstSector, sectors, value: isZero ? ZERO : ++this.#lastValue };
  }

  #range(within: number): [firstSector: number, sectors: number] {
    const { random } = this.#sim;
    const isWhole = random.below(3) > 0;
    const sectors = isWhole ? 8 * (1 + random.below(4)) : 1 + random.below(IO_SECTORS_MAX);
    const first = random.below(within - sectors + 1);
    return [isWhole ? first & ~7 : first, sectors];
  }

  /** Mostly whole chunks, which an image releases. */
  #discardRange(within: number): [firstSector: number, sectors: number] {
    const { random } = this.#sim;
    if (random.below(3) === 0) return this.#range(within);
    const chunks = 1 + random.below(DISCARD_CHUNKS_MAX);
    const first = random.below(Math.floor(within / CHUNK_SECTORS) - chunks + 1);
    return [first * CHUNK_SECTORS, chunks * CHUNK_SECTORS];
  }

  /** @returns whether it succeeded */
  async #discard(target: Target, write: PendingWrite, mayBeKept: boolean): Promise<boolean> {
    const { firstSector, sectors } = write;
    const { volume, user } = target;
    volume.begin(write);
    try {
      const work = user?.discard(firstSector * SECTOR_BYTES, sectors * SECTOR_BYTES);
      await this.#answered(`discard of ${sectors} at ${firstSector}`, target, work);
      volume.endDiscard(write, mayBeKept);
      return true;
    } catch (error) {
      this.#sim.tell(`discard at ${firstSector} of ${volume.name}: ${(error as Error).message}`);
      volume.fail(write);
      return false;
    }
  }

  /** @returns whether it succeeded */
  async #write(target: Target, write: PendingWrite, isZero: boolean): Promise<boolean> {
    const { firstSector, sectors, value } = write;
    const { volume, user } = target;
    const bytes = new Uint8Array(sectors * SECTOR_BYTES);
    if (!isZero) fill(bytes, firstSector, value);
    const isDurable = !isZero && !isImage(target) && value % DURABLE_ONE_IN === 0;
    volume.begin(write);
    try {
      const at = firstSector * SECTOR_BYTES;
      const work = isZero
        ? user?.zero(at, bytes.length, this.#sim.random.oneIn(2))
        : user?.write(at, bytes, isDurable);
      await this.#answered(`write ${value} at ${firstSector}`, target, work);
      volume.end(write);
      if (isDurable) {
        volume.becomeDurable(write);
        this.#sim.count("durable");
      }
      return true;
    } catch (error) {
      this.#sim.tell(
        `write of ${sectors} sectors at ${firstSector} of ${volume.name}: ${(error as Error).message}`,
      );
      volume.fail(write);
      return false;
    }
  }

  async #read(target: Target, first: number, count: number, where: string): Promise<void> {
    const { volume, user } = target;
    if (user === undefined || volume.isBusy(first, count)) return;
    const stamp = volume.changes;
    const askedAt = this.#sim.tick();
    const image = isImage(target) ? target : undefined;
    const told = image?.told;
    try {
      const reading = user.read(first * SECTOR_BYTES, count * SECTOR_BYTES);
      const bytes = await this.#answered(`read at ${first}`, target, reading);
      // It may include writes from meanwhile or not: such a read proves nothing.
      if (volume.changes === stamp || !volume.changedSince(stamp, first, count)) {
        volume.check(first, bytes, where);
        if (image !== undefined) assertNotLost(image, told, { first, count });
      }
    } catch (error) {
      if (error instanceof Violation) throw error;
      if (this.#sim.deletions.mayFail(target, askedAt)) return;
      if (image !== undefined) return readFailed(this.#sim, image, { first, count }, stamp);
      if (this.#sim.media.mayFail(target as Device, true, first, count, askedAt)) return;
      throw new Violation(
        `a read of ${count} sectors at ${first} of ${volume.name}: ${(error as Error).message}`,
      );
    }
  }

  async #flush(device: Device): Promise<void> {
    const { volume, user } = device;
    const sectors = volume.flushBegins();
    const values = volume.values.slice();
    const askedAt = this.#sim.tick();
    try {
      await this.#answered("flush", device, user?.flush());
      volume.flushed(sectors, values);
    } catch (error) {
      if (this.#sim.deletions.mayFail(device, askedAt)) return;
      throw new Violation(`a flush of ${device.path} failed: ${(error as Error).message}`);
    }
  }
}

function isImage(target: Target): target is Image {
  return "device" in target;
}
