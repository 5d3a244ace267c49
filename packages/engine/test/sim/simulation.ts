// The simulation: some devices, one store, one snapshot at a time, and a random generator that decides what happens
// next. The same seed gives the same run.
import { CopyFault, RequestOp, type TrackerEngine } from "@blksnap/engine";
import { audit } from "./audit.js";
import { Cuts } from "./cuts.js";
import { Failures } from "./failures.js";
import { FrontState } from "./front-state.js";
import { Random } from "./random.js";
import {
  rangeOf,
  shapeOf,
  withFirstWrites,
  withLongCopies,
  withSequences,
  withSlices,
} from "./shape.js";
import { SimDevice } from "./sim-device.js";
import type { SimIo } from "./sim-io.js";
import { copyMaps, putBackMaps, type SimMaps } from "./sim-maps.js";
import { answerSlots, asks, giveBackSlots } from "./sim-slots.js";
import type { SimWorld } from "./sim-world.js";
import { Phase, SnapshotCycle } from "./snapshot-cycle.js";
import { SimStore, STORES } from "./store.js";
import { CrashSignal, require } from "./violation.js";
import { whoHangs } from "./who-hangs.js";

const QUIESCE_ROUNDS_MAX = 200_000;
const ENOSPC = 28;

export interface SimOptions {
  seed: number;
  /** Users write in sequence, too, which is copied ahead. */
  hasSequences?: boolean | undefined;
  /** Users mostly write unsaved blocks, and processes die while copies go behind their writes. */
  hasFirstWrites?: boolean | undefined;
  /** With hasFirstWrites: writes of up to 16 blocks. */
  hasLongCopies?: boolean | undefined;
  /** Stores are truncated. */
  hasCuts?: boolean | undefined;
  /** Maps have several slices, without memory at first. */
  hasSlices?: boolean | undefined;
  /** Changes each engine right after it was made: where a test plants a fault. */
  sabotage?: (engine: TrackerEngine) => void;
  /** Called for each event, for a trace. */
  onTrace?: (line: string) => void;
}

export class Simulation implements SimWorld {
  readonly random: Random;
  readonly store: SimStore;
  readonly devices: SimDevice[];
  readonly cycle: SnapshotCycle;
  readonly sabotage: (engine: TrackerEngine) => void;
  crashes = 0;
  steps = 0;
  private readonly onTrace: ((line: string) => void) | undefined;
  private readonly inFlight: SimIo[] = [];
  private readonly cuts: Cuts | undefined;
  private readonly faulty: boolean;
  private readonly denies: boolean;
  private readonly hangs: boolean;
  private readonly hasSequences: boolean;
  private readonly hasFirstWrites: boolean;
  /** A process dies after few steps, or after many. */
  private readonly diesOneIn: number;
  private readonly counted: Record<string, number> = {};
  private readonly failures: Failures;
  private version = 1;
  private calm = false;
  private ticksToCrash = 0;
  /** The maps of each device that the dead process has left. */
  private left: SimMaps[] | undefined;

  constructor(options: SimOptions) {
    this.random = new Random(options.seed);
    this.onTrace = options.onTrace;
    this.sabotage = options.sabotage ?? (() => {});
    this.hasSequences = options.hasSequences ?? false;
    const { hasSlices = false } = options;
    const small = shapeOf(this.random);
    const any = hasSlices ? withSlices(small, this.random) : small;
    this.hasFirstWrites = options.hasFirstWrites ?? false;
    this.diesOneIn = options.seed % 2 === 0 ? 60 : 1000;
    const short = this.hasFirstWrites ? withFirstWrites(any) : any;
    const first = options.hasLongCopies === true ? withLongCopies(short) : short;
    const { chunks, ...shape } = this.hasSequences ? withSequences(any) : first;
    const chunkSectors = 2 ** shape.chunkShift / 512;
    this.store = new SimStore(chunkSectors);
    this.faulty = !this.random.oneIn(3);
    this.failures = new Failures(this.random, this.faulty, this.hasSequences);
    this.denies = this.random.oneIn(2);
    this.hangs = this.random.oneIn(2);
    const count = this.random.between(1, 3);
    const isSparse = hasSlices || options.seed % 3 === 0;
    const hasPlaces = this.hasFirstWrites || options.seed % 4 !== 1;
    this.devices = Array.from({ length: count }, (_, number) => {
      const rest = this.random.below(chunkSectors);
      const capacitySectors = chunks * chunkSectors + rest;
      return new SimDevice(number, this, { ...shape, capacitySectors, isSparse, hasPlaces });
    });
    this.cuts =
      options.hasCuts === true ? new Cuts(this.devices, this.store, this.random) : undefined;
    this.cycle = new SnapshotCycle(this.devices, this.random, (text) => this.trace(text));
  }

  trace(text: () => string): void {
    this.onTrace?.(`${this.steps}: ${text()}`);
  }

  /** After the crash nothing happens, whatever the engine does with the exception. */
  tick(): void {
    if (this.left !== undefined) throw new CrashSignal();
    if (this.ticksToCrash === 0) return;
    this.ticksToCrash--;
    if (this.ticksToCrash > 0) return;
    this.left = this.devices.map(copyMaps);
    throw new CrashSignal();
  }

  addIo(io: SimIo): void {
    this.trace(
      () => `dev${io.device.number} ${io.kind} ${io.id}: ${io.first}+${io.sectors} begins`,
    );
    this.inFlight.push(io);
  }

  ios(): readonly SimIo[] {
    return this.inFlight;
  }

  /** Does `steps` steps; throws Violation. */
  run(steps: number): void {
    for (let index = 0; index < steps; index++) this.step();
    this.checkAll();
  }

  step(): void {
    this.steps++;
    const { random } = this;
    if (random.oneIn(this.isBehind ? this.diesOneIn : 2500))
      this.ticksToCrash = random.between(1, 12);
    if (this.hangs && random.oneIn(this.hangsOneIn())) this.hangOrAnswer();
    const choice = random.below(1000);
    try {
      this.cuts?.step();
      if (choice < (this.store.hung === 0 ? 3 : 12))
        for (const device of this.devices) device.late.tick();
      else if (choice < 350) this.completeOne();
      else if (choice < 500) this.progressOne();
      else if (choice < 720) this.submitFront(random.pick(this.devices));
      else if (choice < 880) this.submitImage(random.pick(this.devices));
      else if (choice < 915) answerSlots(random.pick(this.devices), this.denies);
      else if (choice < 920) giveBackSlots(random.pick(this.devices));
      else if (choice < 930) random.pick(this.devices).tickArea();
      else if (choice < 985) this.cycle.step();
      else if (choice < 993) this.holdOrRelease(random.pick(this.devices));
      else if (choice < 997) this.markDirty(random.pick(this.devices));
      else if (choice < 999 || !random.oneIn(4)) this.spoilBlock(random.pick(this.devices));
      else if (random.oneIn(3)) this.crash();
      else this.checkAll();
    } catch (error) {
      if (!(error instanceof CrashSignal) && this.left === undefined) throw error;
      this.crash();
    }
  }

  /** Lets everything end, then compares everything that can be compared. */
  checkAll(): void {
    this.ticksToCrash = 0;
    this.endRequests();
    this.quiesce();
    this.cuts?.finish();
    for (const device of this.devices) audit(device, () => this.quiesce());
  }

  /** What the engines counted, summed up over devices and restarts. */
  totals(): Record<string, number> {
    const sum: Record<string, number> = { ...this.counted };
    for (const device of this.devices) this.addCounters(sum, device);
    sum["discardsSeen"] = this.devices.reduce(
      (all, { cbtModel }) => all + cbtModel.discardsSeen,
      0,
    );
    return sum;
  }

  newVersion(): number {
    return ++this.version;
  }

  /** Stores that hang keep hanging: all requests still have to end, and areas to close. */
  private endRequests(): void {
    if (this.store.hung === 0) return;
    this.trace(() => "requests end, stores hang");
    this.endHolds();
    const { cycle, devices } = this;
    const waits = () => whoHangs(devices) !== "" || cycle.phase === Phase.DROPPING;
    for (let round = 0; waits(); round++) {
      require(round < QUIESCE_ROUNDS_MAX, () => `a store hangs: ${whoHangs(this.devices)}`);
      const answered = this.inFlight.filter((io) => !this.store.isHung(io.slot));
      if (answered.length > 0) this.complete(this.random.pick(answered));
      if (this.cycle.phase === Phase.DROPPING) this.cycle.step();
      for (const io of this.inFlight) io.progress(io.sectors + 1);
      for (const device of this.devices) {
        if (asks(device)) answerSlots(device, this.denies);
        device.tickArea();
        device.late.tick();
      }
    }
  }

  /** Lets I/O in flight end: no new requests, no failures. What does not end now hangs. */
  private quiesce(): void {
    this.trace(() => "everything ends");
    this.calm = true;
    this.store.hung = 0;
    this.endHolds();
    for (let round = 0; this.busy(); round++) {
      require(round < QUIESCE_ROUNDS_MAX, () => "requests never end");
      if (this.inFlight.length > 0) this.completeOne();
      else if (this.cycle.phase === Phase.DROPPING) this.cycle.step();
      const asked = this.devices.find(asks);
      // Ticks alone must end the wait of blocked writes.
      const blocked = this.devices.find((device) => (device.area?.blockedWrites ?? 0) > 0);
      if (asked !== undefined) answerSlots(asked, this.denies);
      else if (this.inFlight.length === 0 && blocked !== undefined) blocked.tickArea();
      else if (this.inFlight.length === 0 && this.cycle.phase !== Phase.DROPPING) {
        require(!this.busy(), () => `requests hang: ${whoHangs(this.devices)}`);
      }
    }
    this.calm = false;
  }

  private endHolds(): void {
    const { phase } = this.cycle;
    if (phase === Phase.HOLDING || phase === Phase.SWITCHING) this.cycle.end();
    for (const device of this.devices) if (device.held) device.release();
  }

  /** Rare, but less so while a copy goes ahead, which is rare itself. */
  private hangsOneIn(): number {
    if (this.store.hung !== 0) return 1200;
    if (this.isBehind) return 100;
    return this.hasSequences && this.inFlight.some((io) => io.goesAhead) ? 60 : 900;
  }

  private get isBehind(): boolean {
    return this.hasFirstWrites && this.inFlight.some((io) => io.goesBehind);
  }

  private hangOrAnswer(): void {
    this.store.hung = this.store.hung === 0 ? this.random.between(1, 2 ** STORES - 1) : 0;
    this.trace(() => `stores that hang: ${this.store.hung}`);
  }

  private busy(): boolean {
    if (this.inFlight.length > 0 || this.cycle.phase === Phase.DROPPING) return true;
    return whoHangs(this.devices) !== "" || this.devices.some(asks);
  }

  private addCounters(to: Record<string, number>, device: SimDevice): void {
    for (const [name, count] of Object.entries(device.engine.stats.snapshot())) {
      to[name] = (to[name] ?? 0) + count;
    }
  }

  private completeOne(): void {
    if (this.inFlight.length === 0) return;
    const io = this.random.pick(this.inFlight);
    // Reads of the original linger, so that writes overtake them; kept discards, so that writes wait for them.
    const isBehind = this.hasFirstWrites && io.goesBehind;
    const lingers = (io.kind === "run" && io.readsOriginal()) || io.kind === "kept" || isBehind;
    if (lingers && !this.calm && !this.random.oneIn(5)) return;
    if (!this.store.isHung(io.slot)) this.complete(io);
  }

  private complete(io: SimIo): void {
    const index = this.inFlight.indexOf(io);
    this.inFlight[index] = this.inFlight[this.inFlight.length - 1];
    this.inFlight.pop();
    const failure = this.failures.of(io, this.calm);
    this.trace(() => `dev${io.device.number} ${io.kind} ${io.id} completes with ${failure}`);
    if (io.kind === "original") io.device.frontState[io.id] = FrontState.DONE;
    const fault = this.failures.sideOf(io, failure, this.calm);
    if (failure !== 0 && !io.isReportedLate) this.excuse(io, failure, fault);
    io.device.permissions.give();
    io.complete(this.random, failure, fault);
    if (io.isReportedLate) io.device.late.ends(io);
  }

  private progressOne(): void {
    if (this.inFlight.length === 0) return;
    this.random.pick(this.inFlight).progress(this.random.between(1, 12));
  }

  /**
   * A failed I/O excuses its image request, or permits blocks to be lost, or its write to be refused.
   */
  private excuse(io: SimIo, failure: number, fault: number): void {
    const { device } = io;
    const { copies, runs, front } = device.engine;
    if (io.kind === "run") {
      const request = device.image.requests[runs.tag[io.id]];
      if (request !== null) request.excused = true;
    } else if (io.goesAhead) {
      // The copy went ahead: it is first retried with what its write needs.
      return;
    } else if (io.kind === "copy" && copies.owner[io.id] >= front.depth) {
      const request = device.image.requests[copies.owner[io.id] - front.depth];
      if (request !== null) request.excused = true;
    } else if (io.kind === "copy" && fault === CopyFault.WRITE && !device.overflow.mayLose) {
      device.overflow.permitRefusal(copies.owner[io.id]);
    } else if (io.kind === "copy") {
      const start = copies.blockStart[io.id];
      const single = copies.blockCount[io.id] === 1;
      let end = single ? start + 1 : start;
      if (failure === -ENOSPC) end = copies.rangeEnd[io.id];
      const chunk = copies.chunk[io.id];
      for (let block = start; block < end; block++) device.losses.permit(chunk, block);
    }
  }

  private submitFront(device: SimDevice): void {
    const tag = device.frontState.indexOf(FrontState.FREE);
    if (tag < 0) return;
    const { random } = this;
    const kind = random.below(100);
    let op: number = RequestOp.WRITE;
    if (kind < 12) op = RequestOp.READ;
    else if (kind < 15) op = RequestOp.FLUSH;
    else if (kind < 25) op = RequestOp.DISCARD;
    else if (kind < 38) op = RequestOp.WRITE_ZEROES;
    let [first, count] = op === RequestOp.FLUSH ? [0, 0] : rangeOf(this.random, device, op);
    if (op === RequestOp.WRITE) [first, count] = device.sequence.next(random, [first, count]);
    this.trace(() => `dev${device.number} front ${tag}: op ${op} ${first}+${count}`);
    device.submitFront(tag, op, first, count, this.newVersion());
  }

  private submitImage(device: SimDevice): void {
    const tag = device.image.requests.indexOf(null);
    if (tag < 0 || (device.image.model === null && !this.random.oneIn(20))) return;
    const { random } = this;
    const kind = random.below(100);
    let op: number = RequestOp.READ;
    if (kind < 38) op = RequestOp.WRITE;
    else if (kind < 46) op = RequestOp.DISCARD;
    else if (kind < 48) op = RequestOp.FLUSH;
    let [first, count] = op === RequestOp.FLUSH ? [0, 0] : rangeOf(this.random, device, op);
    if (random.oneIn(200)) {
      first = device.disk.length - 1;
      count = 2;
    }
    this.trace(() => `dev${device.number} image ${tag}: op ${op} ${first}+${count}`);
    device.image.submit(tag, op, first, count, this.newVersion());
    device.permissions.give();
  }

  /** A hold without a take: the held writes must continue unharmed. */
  private holdOrRelease(device: SimDevice): void {
    const taking = this.cycle.phase === Phase.HOLDING || this.cycle.phase === Phase.SWITCHING;
    if (taking && this.cycle.isMember(device)) return;
    this.trace(() => `dev${device.number} is ${device.held ? "held" : "not held"}`);
    if (device.held) device.release();
    else if (this.random.oneIn(4)) device.hold();
  }

  private markDirty(device: SimDevice): void {
    const [first, count] = rangeOf(this.random, device, RequestOp.READ);
    device.engine.markDirty(first * 512, count * 512);
    device.cbtModel.both(first * 512, count * 512);
    device.kept.forget(first, count);
  }

  private spoilBlock(device: SimDevice): void {
    const { badBlocks } = device;
    const blocks = Math.ceil(device.disk.length / device.blockSectors);
    if (badBlocks.size > 1) badBlocks.clear();
    else if (this.faulty) badBlocks.add(this.random.below(blocks));
  }

  /** The process dies: I/O in flight ends or is dropped, then a new process starts. */
  private crash(): void {
    this.crashes++;
    this.ticksToCrash = 0;
    for (const [index, maps] of (this.left ?? []).entries()) putBackMaps(this.devices[index], maps);
    this.left = undefined;
    this.trace(() => "crash");
    for (const io of this.inFlight) {
      io.isOrphan = true;
      if (this.random.oneIn(2)) io.progress(this.random.below(2 * io.sectors + 1));
    }
    this.inFlight.length = 0;
    const keep = this.cycle.isCommitted;
    const members = this.devices.map((device) => this.cycle.isMember(device) && keep);
    this.cycle.restart();
    for (const [index, device] of this.devices.entries()) {
      this.addCounters(this.counted, device);
      device.restart(members[index]);
      this.cuts?.restart(device);
    }
  }
}
