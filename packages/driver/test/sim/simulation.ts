/**
 * The whole driver on a simulated machine, from a seed: operations of the API, users' I/O, deaths at fault points,
 * compared with a plain model.
 *
 * ```
 *   step: one random action ─▶ the machine runs for a while ─▶ results are checked
 *   death: callbacks of that life never come ─▶ the next life recovers ─▶ what was acknowledged is there
 * ```
 */
import { Killed, Random, type SimDisk, SimMachine } from "@blksnap/sim-kernel";
import { Api } from "./api.js";
import { HangApi } from "./api-in-hangs.js";
import { Arming, type Point } from "./arming.js";
import { Deletions } from "./deletions.js";
import { Device, type Image, type SimSnapshot } from "./device.js";
import { FileSystems } from "./file-systems.js";
import { Growths } from "./growths.js";
import { LONG_MAX_MS } from "./hangs.js";
import { keepPersistent } from "./kept-snapshots.js";
import type { Driver } from "./life.js";
import { faults, startDriver } from "./load.js";
import { Media } from "./media.js";
import { reconcile } from "./reconcile.js";
import { DISK_BYTES, keptStoreOf, kernelOf, SLOW_STORE_US } from "./settings.js";
import { Stops } from "./stops.js";
import { Strangers } from "./strangers.js";
import { UserIo } from "./user-io.js";
import { Violation } from "./violation.js";

const DEVICES = 3;
/** Simulated time: longer than all limits of the driver together. */
const OPERATION_LIMIT_MS = 300_000;
/** For a user's request, including deaths of the driver, but not hangs of its own medium. */
const IO_LIMIT_MS = 60_000;
const TRACE_LINES = 60;
const DEATHS_IN_A_ROW_MAX = 4;
/** The error code of a driver that ends. */
const CLOSED = "SHUTTING_DOWN";
/** One orderly end in so many steps in which a death may be armed. */
const STOP_ONE_IN = 6;
/** Users' requests per step. */
const USERS_AT_ONCE = 2;

export interface SimOptions {
  readonly seed: number;
  readonly onTrace?: ((line: string) => void) | undefined;
  /** One step in so many arms a death; 0: none. */
  readonly deathOneIn?: number;
  /** Some users write sequentially, and blocks are copied ahead of them. */
  readonly hasSequences?: boolean;
  /** Snapshots that do not persist, and deaths in the middle of copies. */
  readonly hasFirstWrites?: boolean;
  /** Stores that are too small, and media that fail. */
  readonly hasFailures?: boolean;
  /** Media that do not answer for a while. */
  readonly hasHangs?: boolean;
  /** Originals that become larger. */
  readonly hasGrowth?: boolean;
  /** Other programs delete fronts and images that are served. */
  readonly hasDeletions?: boolean;
  /** Simulated time limit of each operation, recovery and end. */
  readonly limitMs?: number;
}

/** An unanswered operation of the API. */
export interface Pending {
  readonly what: string;
  readonly sinceMs: number;
  /** The limit while a medium hangs; absent: as for operations that do not need it. */
  readonly patienceMs?: number | undefined;
  /** The driver has died: the outcome stays unknown. */
  readonly onDeath: () => void;
}

export class Simulation {
  readonly machine: SimMachine;
  readonly random: Random;
  readonly hasSequences: boolean;
  readonly hasFirstWrites: boolean;
  readonly hasFailures: boolean;
  readonly keptStore: string;
  readonly storeDisk: SimDisk;
  readonly devices: Device[] = [];
  readonly snapshots: SimSnapshot[] = [];
  readonly pending: Set<Pending> = new Set();
  readonly trace: string[] = [];
  readonly seen: Map<string, number> = new Map();
  readonly pointsPassed: Set<Point> = new Set();
  readonly pointsOfDeath: Set<Point> = new Set();
  steps = 0;
  operations = 0;
  lives = 0;
  /** Counts events, which gives their order. */
  now = 0;
  driver!: Driver;
  problem: Error | undefined;
  #isDead = false;
  #isPowerGone = false;
  /** The boot in which the driver has run. */
  #bootId = "";
  cuts = 0;
  /** Orderly ends. */
  stops = 0;
  /** When the driver's present life had recovered. */
  servesSinceMs = 0;
  /** It has recovered. */
  isServing = false;
  readonly #options: SimOptions;
  readonly #limitMs: number;
  readonly io: UserIo;
  readonly api: Api;
  readonly hangApi: HangApi;
  readonly media: Media;
  readonly fileSystems: FileSystems;
  readonly arming: Arming;
  readonly growths: Growths;
  readonly deletions: Deletions;
  readonly #strangers: Strangers;
  readonly #stops: Stops;

  constructor(options: SimOptions) {
    this.#options = options;
    this.arming = new Arming(this, options);
    this.#limitMs = options.limitMs ?? OPERATION_LIMIT_MS;
    this.hasSequences = options.hasSequences ?? false;
    this.hasFirstWrites = options.hasFirstWrites ?? false;
    this.hasFailures = options.hasFailures ?? false;
    this.random = new Random(options.seed ^ 0x51b);
    const { seed, hasDeletions = false, hasGrowth = false } = options;
    this.deletions = new Deletions(this, seed, hasDeletions);
    this.growths = new Growths(this, seed, hasGrowth);
    this.keptStore = keptStoreOf(seed);
    this.machine = new SimMachine({
      ...kernelOf(seed, hasGrowth),
      onTrace: (line) => this.tell(line),
    });
    for (let index = 0; index < DEVICES; index++) {
      const name = `sd${"abc"[index]}`;
      const disk = this.machine.addDisk(name, { sizeBytes: DISK_BYTES });
      this.devices.push(new Device(`/dev/${name}`, disk));
    }
    this.storeDisk = this.machine.addDisk("sds", { sizeBytes: 8 * DISK_BYTES });
    if (this.hasFirstWrites) this.storeDisk.medium.latencyUs = SLOW_STORE_US;
    this.io = new UserIo(this);
    this.api = new Api(this);
    this.hangApi = new HangApi(this);
    this.#strangers = new Strangers(this);
    this.#stops = new Stops(this);
    this.media = new Media(this, options);
    this.fileSystems = new FileSystems(this, seed);
    faults.onPoint = (point) => this.#onPoint(point);
  }

  tell(line: string): void {
    this.trace.push(line);
    if (this.trace.length > TRACE_LINES) this.trace.shift();
    this.#options.onTrace?.(line);
  }

  count(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }

  tick(): number {
    return ++this.now;
  }

  /** @throws Violation */
  async run(steps: number): Promise<void> {
    try {
      await this.#live();
      for (; this.steps < steps; this.steps++) await this.#step();
      await this.#finish();
    } finally {
      await this.machine.close();
      faults.onPoint = () => undefined;
    }
  }

  images(): Image[] {
    return this.snapshots.flatMap((snapshot) => [...snapshot.images.values()]);
  }

  /** An operation that may or may not be answered before the driver dies. */
  async call<Value>(
    what: string,
    work: () => Promise<Value>,
    onDeath: () => void,
    patienceMs?: number,
  ): Promise<Value> {
    const entry = { what, sinceMs: this.machine.nowMs, onDeath, patienceMs };
    this.pending.add(entry);
    this.operations++;
    this.count(what.split(" ")[0]);
    this.tell(`> ${what}`);
    this.arming.within(what.split(" ")[0]);
    let answer: { readonly value: Value } | { readonly error: unknown };
    try {
      answer = { value: await work() };
    } catch (error) {
      answer = { error };
    }
    // A dead process answers nothing.
    if (!this.pending.has(entry) || this.#isDead) return new Promise(() => undefined);
    this.pending.delete(entry);
    const isRefused = "error" in answer && (answer.error as { code?: string }).code === CLOSED;
    if (isRefused && this.#stops.isLeaving) {
      // The next life finds what it has done.
      this.pending.add({ ...entry, patienceMs: Number.POSITIVE_INFINITY });
      return new Promise(() => undefined);
    }
    if ("value" in answer) {
      this.tell(`< ${what}: done`);
      return answer.value;
    }
    const { code, message } = answer.error as Error & { code?: string };
    this.tell(`< ${what}: ${code} ${message}`);
    if (this.deletions.excuses(answer.error)) {
      this.count("excused");
      onDeath();
      return new Promise(() => undefined);
    }
    throw answer.error;
  }

  /** Work that continues by itself; an error in it ends the simulation. */
  spawn(work: Promise<void>): void {
    work.catch((error: Error) => {
      this.problem ??= error;
    });
  }

  async #step(): Promise<void> {
    if (this.media.mayAsk) await this.#stops.step(this.arming.oneIn * STOP_ONE_IN);
    this.media.step(!this.isAsked());
    await this.growths.step();
    this.deletions.step();
    this.arming.step();
    const mayAsk = this.pending.size < 3 && this.media.mayAsk && this.deletions.mayAsk;
    const isAsked = mayAsk && this.random.below(8) === 0;
    if (isAsked) this.spawn(this.media.isFailing ? this.hangApi.start() : this.api.start());
    else for (let users = 0; users < USERS_AT_ONCE; users++) this.io.start();
    await this.advance(this.media.stepMs);
    this.assertAll();
    if (!this.media.isFailing) await this.hangApi.settle();
  }

  /** Runs the machine; if the driver dies meanwhile, the next one is started. */
  async advance(ms: number): Promise<void> {
    try {
      await this.machine.sleep(ms);
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
    }
    if (this.#isDead) await this.#afterDeath();
    if (this.problem !== undefined) throw this.problem;
  }

  assertAll(): void {
    const [violation] = this.machine.violations;
    if (violation !== undefined) throw new Violation(`the kernel: ${violation}`);
    this.growths.assertSizes();
    this.io.assertNoneHangs(IO_LIMIT_MS + (this.#options.hasHangs ? LONG_MAX_MS : 0));
    for (const { what, sinceMs } of this.pending) {
      if (this.machine.nowMs - sinceMs > this.#limitMs) throw new Violation(`${what} hangs`);
    }
  }

  /** An operation is in progress, or about to begin. */
  isAsked(): boolean {
    const all = [...this.devices, ...this.snapshots];
    const isInHand = this.deletions.isUnsettled || all.some((one) => one.isInHand);
    return this.pending.size > 0 || isInHand;
  }

  #onPoint(point: Point): void {
    if (this.machine.isDying || this.#isDead) throw new Killed();
    this.pointsPassed.add(point);
    if (!this.arming.meets(point)) return;
    this.pointsOfDeath.add(point);
    this.tell(`the driver dies at ${point}`);
    this.die();
    throw new Killed();
  }

  die(): void {
    this.ended();
    this.machine.kill();
  }

  cutPower(): void {
    this.#isPowerGone = true;
    this.cuts++;
    this.ended();
    this.machine.cut();
  }

  /** Another life of the driver begins. */
  ended(): void {
    this.#isDead = true;
    this.isServing = false;
  }

  async #afterDeath(): Promise<void> {
    this.media.afterDeath(this.#isPowerGone);
    this.hangApi.forget();
    this.deletions.afterDeath();
    for (const { onDeath } of this.pending) onDeath();
    this.pending.clear();
    this.fileSystems.releaseAll();
    await this.machine.settle();
    for (const { volume } of this.devices) volume.forgetDiscards();
    const isSameBoot = this.machine.bootId === this.#bootId;
    if (this.#isPowerGone) this.#powerGone();
    this.#stops.afterDeath();
    const { isToBeReported, hasWritten } = await this.#strangers.act();
    // The next boot, without another driver in this one.
    const mayReboot = isSameBoot && !isToBeReported && this.media.mayPowerGo;
    if (mayReboot && this.random.below(hasWritten ? 2 : 6) === 0) {
      this.machine.cut();
      await this.machine.settle();
      this.cuts++;
      this.#powerGone();
    }
    await this.#live();
  }

  #powerGone(): void {
    this.#isPowerGone = false;
    this.io.forget();
    for (const device of this.devices) device.powerGone();
    keepPersistent(this, "cut");
  }

  /** A life of the driver; if it dies while it recovers, another one follows. */
  async #live(): Promise<void> {
    for (let deaths = 0; ; deaths++) {
      this.#isDead = false;
      if (deaths >= DEATHS_IN_A_ROW_MAX) this.arming.disarm();
      this.lives++;
      this.#bootId = this.machine.bootId;
      this.tell(`life ${this.lives}`);
      try {
        const { freezing } = this.fileSystems;
        const tell = (line: string): void => {
          this.media.onLog(line);
          this.tell(line);
        };
        const starting = startDriver(this.machine, tell, freezing, this.media.driverOptions);
        this.driver = (await this.machine.run(starting, this.#limitMs)) as Driver;
        this.isServing = true;
        await reconcile(this);
        this.media.recovered();
        this.servesSinceMs = this.machine.nowMs;
        return;
      } catch (error) {
        if (!this.#isDead) throw error;
        await this.machine.settle();
      }
    }
  }

  /** Ends everything in progress, and checks everything. */
  async #finish(): Promise<void> {
    this.arming.disarm();
    this.media.end();
    const until = this.machine.nowMs + this.#limitMs;
    while (this.pending.size > 0 || this.io.inFlight > 0 || this.deletions.isUnsettled) {
      this.deletions.settle();
      if (this.machine.nowMs > until) {
        const what = [...this.pending].map((one) => one.what).join(", ");
        throw new Violation(`does not end: ${[what, ...this.io.waiting].join(", ")}`);
      }
      await this.advance(50);
    }
    await this.growths.finish();
    this.spawn(this.io.readAll());
    while (this.io.inFlight > 0) await this.advance(50);
    this.assertAll();
  }
}
