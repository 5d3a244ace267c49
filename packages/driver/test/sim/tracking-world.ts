/** One persistent tracker on a simulated machine, and its backups: does the next one miss any writes? */
import type { FaultPoint, GrowthFaultPoint } from "@blksnap/data-plane";
import {
  Killed,
  type MachineOptions,
  type SimDisk,
  SimMachine,
  SystemError,
} from "@blksnap/sim-kernel";
import { UblkState } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import type { DriverOptions } from "../../dist/index.js";
import type { Driver } from "./life.js";
import { faults, startDriver } from "./load.js";
import { DISK_BYTES } from "./settings.js";

export const DEVICE = "/dev/sda";
/** The folder of records and journals on the medium. */
const LASTING = "/var/lib/blksnap/";
const LIMIT_BYTES = 2 ** 22;
const WRITTEN_AT = 65536;
const WRITTEN_BYTES = 4096;

/** What a backup program knows of the device: generation and number. */
export interface Backup {
  readonly generation: string;
  readonly number: number;
}

export class World {
  readonly machine: SimMachine;
  readonly disk: SimDisk;
  driver!: Driver;
  readonly #options: Partial<DriverOptions>;
  #isUp = false;

  constructor(options: Partial<DriverOptions>, machine: Partial<MachineOptions> = {}) {
    this.#options = options;
    this.machine = new SimMachine({ seed: 1, ...machine });
    this.disk = this.machine.addDisk("sda", { sizeBytes: DISK_BYTES });
  }

  async run<Value>(work: Promise<Value>): Promise<Value> {
    return (await this.machine.run(work)) as Value;
  }

  begin(): Promise<Driver> {
    return startDriver(this.machine, () => undefined, undefined, this.#options);
  }

  async start(): Promise<void> {
    this.driver = await this.run(this.begin());
    this.#isUp = true;
  }

  async attach(persistent = true): Promise<void> {
    await this.run(this.driver.attach(DEVICE, { persistent }));
  }

  async create(
    persistent = false,
    store = "/var/tmp",
    devices: readonly string[] = [DEVICE],
  ): Promise<string> {
    const options = { devices, stores: [store], limitBytes: LIMIT_BYTES, persistent };
    return (await this.run(this.driver.snapshotCreate(options))).id;
  }

  async take(persistent = false, store?: string): Promise<string> {
    const id = await this.create(persistent, store);
    await this.run(this.driver.snapshotTake(id));
    return id;
  }

  /** A full backup: later backups ask for what is written from now on. */
  async backup(): Promise<Backup> {
    const id = await this.take();
    await this.run(this.driver.snapshotDestroy(id));
    const info = await this.run(this.driver.cbtInfo(DEVICE));
    return { generation: info.generation_id, number: info.changes_number };
  }

  kill(): void {
    this.machine.kill();
    this.#isUp = false;
  }

  /** @returns whether it reached that point, and was killed there */
  async dieAt(
    point: FaultPoint | GrowthFaultPoint,
    work: () => Promise<unknown>,
  ): Promise<boolean> {
    let isKilled = false;
    faults.onPoint = (met) => {
      if (this.machine.isDying) throw new Killed();
      if (met !== point || isKilled) return;
      isKilled = true;
      this.machine.die();
    };
    try {
      await this.killed(work);
    } finally {
      faults.onPoint = () => undefined;
    }
    return isKilled;
  }

  /** Work in which the daemon may be killed. */
  async killed(work: () => Promise<unknown>): Promise<void> {
    try {
      await this.machine.run(work());
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      this.#isUp = false;
    }
    await this.machine.settle();
  }

  /** Another program deletes the front. */
  async deleteFront(): Promise<void> {
    const [[id, front] = []] = this.machine.ublk.devices;
    assert.ok(id !== undefined && front !== undefined, "there is a front");
    await this.machine.run(
      new Promise<void>((resolve) => {
        front.stop(resolve);
      }),
    );
    await this.machine.sleep(1000);
  }

  /** Writes as a user would: through the front, or to the original if there is none. */
  async write(at: number = WRITTEN_AT): Promise<void> {
    const tracker = this.#isUp ? (await this.run(this.driver.status())).trackers[0] : undefined;
    const user = this.machine.user(tracker?.front_live === true ? tracker.front : DEVICE);
    await this.machine.run(user.write(at, new Uint8Array(WRITTEN_BYTES).fill(7), true));
    user.close();
  }

  /** First byte of the only snapshot's image at the position where users write; undefined without a snapshot. */
  async imageByte(): Promise<number | undefined> {
    const { snapshots } = await this.run(this.driver.status());
    const image = snapshots[0]?.devices[0]?.image;
    if (typeof image !== "string") return undefined;
    const user = this.machine.user(image);
    const bytes = await this.run(user.read(WRITTEN_AT, WRITTEN_BYTES));
    user.close();
    return bytes[0];
  }

  /** A write now would not wait for a front. */
  get mayWrite(): boolean {
    const devices = [...this.machine.ublk.devices.values()];
    return this.#isUp || devices.every(({ state }) => state === UblkState.DEAD);
  }

  async reboot(): Promise<void> {
    this.machine.cut();
    await this.machine.settle();
    await this.start();
  }

  /** The device has a front, a new one if the old was deleted, and no user waits. */
  async assertServes(): Promise<void> {
    const { trackers, waiting } = await this.run(this.driver.status());
    assert.equal(waiting, []);
    const told = trackers.map((one) => [one.device, one.front_live, one.persistence.state]);
    assert.equal(told, [[DEVICE, true, "on"]]);
  }

  /** @returns "continues", "missed" or "anew": what the next backup learns of the writes */
  async verdict(
    { generation, number }: Backup,
    at: number = WRITTEN_AT,
  ): Promise<"continues" | "missed" | "anew"> {
    const { trackers } = await this.run(this.driver.status());
    if (trackers.length === 0) await this.attach();
    const id = await this.take();
    const info = await this.run(this.driver.cbtInfo(DEVICE));
    const marked: number[] = [];
    if (info.generation_id === generation) {
      const { ranges } = await this.run(this.driver.diff(DEVICE, number));
      const collect = async () => {
        for await (const batch of ranges) {
          for (const [offset = 0, length = 0] of batch.map(Object.values) as number[][]) {
            if (offset <= at && at < offset + length) marked.push(offset);
          }
        }
      };
      await this.run(collect());
    }
    await this.run(this.driver.snapshotDestroy(id));
    if (info.generation_id !== generation) return "anew";
    return marked.length > 0 ? "continues" : "missed";
  }
}

export async function within(
  play: (world: World) => Promise<void>,
  options: Partial<DriverOptions> = {},
  machine?: Partial<MachineOptions>,
): Promise<void> {
  const world = new World(options, machine);
  try {
    await world.start();
    await play(world);
  } finally {
    await world.machine.close();
  }
}

/** The disk of the journals removes no name. @param errno Linux's @returns function that ends that */
export function keepLastingNames({ machine: { files } }: World, errno: number): () => void {
  const unlink = files.unlink.bind(files);
  files.unlink = (path) => {
    if (path.startsWith(LASTING)) throw new SystemError(errno, "unlink", path);
    unlink(path);
  };
  return () => {
    files.unlink = unlink;
  };
}
