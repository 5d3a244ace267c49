/**
 * A simulated machine: disks, files, ublk, time, and the process that runs on it.
 *
 * ```
 *   the program, unchanged      @blksnap/uring    node:fs    child_process    timers, clocks, random
 *                                     │              │             │                  │
 *   install.ts puts in their place    └──────────────┴──────┬──────┴──────────────────┘
 *                                                           ▼
 *   SimMachine                        ring ─▶ operations ─▶ disk, file, ublk ─▶ scheduler
 * ```
 *
 * One machine runs at a time, and one process on it. Everything happens on one thread, in an order that depends on the
 * seed.
 */
import { type BlockDevice, type DiskOptions, SimDisk } from "./block-device.js";
import { addBlockFolder, type QueueAttributes, removeBlockFolder } from "./block-sysfs.js";
import { Killed } from "./errno.js";
import { Files } from "./files.js";
import { activate } from "./install.js";
import { Medium } from "./medium.js";
import { Memory } from "./memory.js";
import {
  Directory,
  deviceOf,
  EventCounter,
  FileSystem,
  type Node,
  RegularFile,
  resetInodes,
} from "./nodes.js";
import { Operations } from "./operations.js";
import { populate } from "./proc-files.js";
import { OpenFile, SimProcess } from "./process.js";
import { Random } from "./random.js";
import { nextTurn } from "./real.js";
import { Scheduler } from "./scheduler.js";
import type { SimRing } from "./sim-ring.js";
import { Tree } from "./tree.js";
import { UblkDevice } from "./ublk-device.js";
import { UblkDriver } from "./ublk-driver.js";
import { UblkKernel, type UblkKernelOptions } from "./ublk-kernel.js";
import { SimUser } from "./user.js";

export interface MachineOptions extends UblkKernelOptions {
  readonly seed: number;
  /** Called with each line of the trace. */
  readonly onTrace?: (line: string) => void;
  /** One submission in so many is accepted only in part; 0: none. */
  readonly partialSubmitOneIn?: number;
}

const DISK_MAJOR = 8;
const MINORS_PER_DISK = 16;
const TMPFS_DEVICE = 1;
/** The disk of /var. */
const SYSTEM_DISK = "vda";
const SYSTEM_NUMBERS = [253, 0] as const;
const SYSTEM_DISK_BYTES = 2 ** 20;
/** Default limit of simulated time for a run. */
const RUN_LIMIT_MS = 600_000;
/** 2026-01-01 */
const EPOCH_MS = 1_767_225_600_000;

export class SimMachine {
  readonly random: Random;
  readonly scheduler: Scheduler = new Scheduler();
  readonly memory: Memory = new Memory();
  readonly files: Files = new Files(this);
  readonly operations: Operations;
  readonly rings: Map<number, SimRing> = new Map();
  /** Violations of the model. */
  readonly violations: string[] = [];
  readonly partialSubmitOneIn: number;
  readonly ublkKernel: UblkKernel;
  /** Additional lines of /proc/self/mountinfo. */
  readonly mounts: string[] = [];
  /** Programs that may be run, by name; they return status and output. */
  readonly programs: Map<string, (words: readonly string[]) => [number, string, string]> =
    new Map();
  /** File system of /var and /mnt: it survives power cuts, except for unsynced writes. */
  disksFs!: FileSystem;
  tree!: Tree;
  ublk!: UblkDriver;
  bootId = "";
  /** Set during a turn of a reactor: its ring does not wait. */
  isTurning = false;
  readonly #disks: SimDisk[] = [];
  readonly #options: MachineOptions;
  readonly #fsRandom: Random;
  #volatile!: FileSystem;
  #var: Directory | undefined;
  #process: SimProcess | undefined;
  /** Lives whose end waits for I/O that hangs. */
  readonly #leaving = new Set<SimProcess>();
  #isDying = false;
  #lives = 0;
  #bootedUs = 0;
  readonly #deactivate: () => void;

  constructor(options: MachineOptions) {
    this.#options = options;
    this.random = new Random(options.seed);
    this.#fsRandom = new Random(options.seed ^ 0x5bd1e995);
    this.partialSubmitOneIn = options.partialSubmitOneIn ?? 0;
    this.ublkKernel = new UblkKernel(options);
    this.operations = new Operations({
      scheduler: this.scheduler,
      memory: this.memory,
      ringOf: (fd) => this.rings.get(fd),
      refusesPages: () => this.ublkKernel.refusesPages(),
    });
    resetInodes();
    this.#boot();
    this.#deactivate = activate(this);
  }

  get nowMs(): number {
    return this.scheduler.nowUs / 1000;
  }

  /** Since 1970. */
  get wallMs(): number {
    return EPOCH_MS + this.nowMs;
  }

  get upMs(): number {
    return (this.scheduler.nowUs - this.#bootedUs) / 1000;
  }

  /** The process that makes system calls now. @throws Killed if there is none */
  get process(): SimProcess {
    if (this.#process === undefined || !this.#process.isAlive) throw new Killed();
    return this.#process;
  }

  /** As `process`, without throwing. */
  get runningProcess(): SimProcess | undefined {
    return this.#process;
  }

  /** The remaining code of a killed process is running: it has no effect. */
  get isDying(): boolean {
    return this.#isDying;
  }

  trace(line: string): void {
    this.#options.onTrace?.(`${this.nowMs.toFixed(3)} ${line}`);
  }

  violation(what: string): void {
    this.violations.push(what);
    this.trace(`VIOLATION ${what}`);
  }

  /** Adds a disk, /dev/NAME. It survives kills and power cuts. */
  addDisk(name: string, options: DiskOptions): SimDisk {
    const numbers = [DISK_MAJOR, this.#disks.length * MINORS_PER_DISK] as const;
    const parts = { scheduler: this.scheduler, random: this.random };
    const disk = new SimDisk(this.#volatile, name, numbers, options, parts);
    this.#disks.push(disk);
    this.addBlockDevice(disk);
    return disk;
  }

  /** Makes a block device appear in /dev and /sys. */
  addBlockDevice(device: BlockDevice, attributes: QueueAttributes = {}): void {
    this.tree.directory("/dev").set(device.name, device);
    addBlockFolder(this.tree, device, attributes);
  }

  removeBlockDevice(device: BlockDevice): void {
    const devices = this.tree.directory("/dev");
    if (devices.lookup(device.name) !== device) return;
    devices.remove(device.name);
    removeBlockFolder(this.tree, device);
  }

  /** Another program on the machine that uses a block device; it only ends with the machine. */
  user(path: string): SimUser {
    return new SimUser(this, path);
  }

  /** Requests that users of a ublk device wait for. */
  inFlight(id: number): number {
    return this.ublk.devices.get(id)?.inFlight ?? 0;
  }

  /**
   * Starts a life of the program.
   * @param main its first code; run() can wait for its result
   */
  start<Value>(main: () => Value): Value {
    if (this.#process !== undefined) throw new Error("a process runs already");
    this.#process = new SimProcess(++this.#lives);
    this.trace(`life ${this.#lives} begins`);
    return main();
  }

  /** Ends the life as SIGKILL does. Its code may still run until run() or settle() has been awaited. */
  kill(): void {
    const process = this.#process;
    if (process === undefined) return;
    this.trace(`life ${process.id} is killed`);
    process.isAlive = false;
    this.#process = undefined;
    this.#isDying = true;
    for (const ending of process.endings) ending.end();
    process.endings.clear();
    for (const mapping of process.mappings) this.memory.remove(mapping);
    process.mappings.clear();
    for (const io of process.inFlight) {
      if (io.state === "hung") continue;
      io.abandon?.();
      process.inFlight.delete(io);
    }
    for (const { node } of process.files.values()) {
      if (node instanceof UblkDevice) node.serverDied();
    }
    this.#leaving.add(process);
    process.onIoEnd = () => this.#tryLeave(process);
    this.#tryLeave(process);
  }

  /** kill(), from the program's own code: does not return. */
  die(): never {
    this.kill();
    throw new Killed();
  }

  /** Closes the descriptors when the last I/O has ended. */
  #tryLeave(process: SimProcess): void {
    if (process.inFlight.size > 0 || !this.#leaving.delete(process)) return;
    process.leave();
  }

  /** A power cut: unsynced data survives in part, or not at all. */
  cut(): void {
    this.trace("power cut");
    this.#powerOff();
    for (const disk of this.#disks) disk.content.cut();
    this.#cutFiles();
    this.#boot();
  }

  /** An orderly reboot: everything is written back first. */
  reboot(): void {
    this.trace("reboot");
    this.#powerOff();
    for (const disk of this.#disks) disk.content.flush();
    this.disksFs.syncNames();
    this.#eachFile((file) => file.content.flush());
    this.#boot();
  }

  #powerOff(): void {
    this.kill();
    for (const process of this.#leaving) {
      process.inFlight.clear();
      this.#tryLeave(process);
    }
    for (const disk of this.#disks) {
      disk.medium.forget();
      disk.openers.clear();
      disk.locks.clear();
    }
    this.disksFs.medium.forget();
    this.scheduler.cancelMachine();
  }

  #cutFiles(): void {
    this.disksFs.cutNames();
    this.#eachFile((file) => file.content.cut());
  }

  #eachFile(act: (file: RegularFile) => void): void {
    const visit = (directory: Directory): void => {
      for (const name of directory.names()) {
        const node = directory.lookup(name);
        if (node instanceof Directory) visit(node);
        else if (node instanceof RegularFile) act(node);
      }
    };
    if (this.#var !== undefined) visit(this.#var);
  }

  #boot(): void {
    const parts = { scheduler: this.scheduler, random: this.random };
    this.#bootedUs = this.scheduler.nowUs;
    this.bootId = this.random.uuid();
    const memory = new Medium("tmpfs", parts);
    memory.latencyUs = [1, 5];
    this.#volatile = new FileSystem(TMPFS_DEVICE, memory, true, this.#fsRandom);
    this.disksFs ??= new FileSystem(
      deviceOf(...SYSTEM_NUMBERS),
      new Medium("files", parts),
      false,
      this.#fsRandom,
    );
    this.#var ??= new Directory(this.disksFs);
    this.tree = new Tree(new Directory(this.#volatile));
    this.tree.root.set("var", this.#var);
    populate(this, this.#volatile);
    this.ublk = new UblkDriver(this.#volatile, this);
    this.tree.directory("/dev").set("ublk-control", this.ublk);
    const system = { sizeBytes: SYSTEM_DISK_BYTES };
    this.addBlockDevice(new SimDisk(this.#volatile, SYSTEM_DISK, SYSTEM_NUMBERS, system, parts));
    for (const disk of this.#disks) this.addBlockDevice(disk);
  }

  /** An unnamed file in memory. */
  openMemory(node: Node, name: string): number {
    return this.process.addFile(new OpenFile(node, name, 2));
  }

  /** Adds one to an eventfd of the process. */
  wakeCounter(fd: number): void {
    const { node } = this.process.file(fd, "write");
    if (node instanceof EventCounter) node.add(1n);
  }

  get volatileFs(): FileSystem {
    return this.#volatile;
  }

  /** Runs an action a moment later, for the process that runs now. */
  later<Value>(action: () => Value): Promise<Value> {
    const { process } = this;
    return new Promise((resolve, reject) => {
      const delayUs = 1 + this.random.below(30);
      this.scheduler.after(
        delayUs,
        () => {
          try {
            resolve(action());
          } catch (error) {
            reject(error);
          }
        },
        process,
        true,
      );
    });
  }

  /**
   * Runs events until the promise has settled, or the condition holds.
   * @param limitMs limit of simulated time
   * @throws Killed if the process was killed meanwhile; the promise's rejection; Error if no event is left, or the time
   * is over
   */
  async run<Value>(
    until: Promise<Value> | (() => boolean),
    limitMs: number = RUN_LIMIT_MS,
  ): Promise<Value | undefined> {
    const process = this.#process;
    const endUs = this.scheduler.nowUs + limitMs * 1000;
    let isSettled = false;
    if (typeof until !== "function") {
      until.then(
        () => {
          isSettled = true;
        },
        () => {
          isSettled = true;
        },
      );
    }
    await nextTurn();
    for (;;) {
      if (process !== undefined && !process.isAlive) {
        await this.settle();
        throw new Killed();
      }
      if (typeof until === "function" ? until() : isSettled) break;
      if (this.scheduler.nowUs > endUs) throw new Error(`not done in ${limitMs} simulated ms`);
      if (await this.#step()) continue;
      throw new Error("stuck: nothing is left that could happen");
    }
    return typeof until === "function" ? undefined : until;
  }

  /** @returns false if no event is left */
  async #step(): Promise<boolean> {
    try {
      const event = this.scheduler.step();
      if (event === undefined) return false;
      if (event.isMain) await nextTurn();
    } catch (error) {
      // Code that was killed in the middle of something.
      if (!(error instanceof Killed)) throw error;
    }
    return true;
  }

  /** Runs the machine for a while. */
  async sleep(ms: number): Promise<void> {
    const untilUs = this.scheduler.nowUs + ms * 1000;
    this.scheduler.after(ms * 1000, () => undefined, undefined, true);
    await this.run(() => this.scheduler.nowUs >= untilUs, ms + 1);
  }

  /** Runs a killed process's code until it waits for what never comes. */
  async settle(): Promise<void> {
    await nextTurn();
    await nextTurn();
    this.#isDying = false;
  }

  /** One event of the machine itself, while a thread waits in the kernel. */
  stepMachine(): boolean {
    return this.scheduler.stepMachine();
  }

  /**
   * Ends the simulation: calls go to the real kernel again. Before that, the killed process's code runs until it waits
   * for what never comes: otherwise it would meet the real kernel, or the next machine.
   */
  async close(): Promise<void> {
    this.kill();
    await this.settle();
    this.#deactivate();
  }
}
