/**
 * A daemon that is killed at any step of an attach, a detach or a stop of a persistent tracker, and a front
 * that somebody else deletes: others may write to the original from then on, and no later boot takes the map
 * for one that was kept to the end of that one. Where the front was there to the end, the map continues.
 */
import type { FaultPoint } from "@blksnap/data-plane";
import { Errno, Killed, SimMachine, SystemError } from "@blksnap/sim-kernel";
import { UblkState } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Driver } from "./life.js";
import { FAULT_POINTS, faults, startDriver } from "./load.js";
import { DISK_BYTES } from "./settings.js";

const DEVICE = "/dev/sda";
const STORES = ["/var/tmp"];
const LIMIT_BYTES = 2 ** 22;
const WRITTEN_AT = 65536;
const AREA_JOURNAL = /^\/var\/lib\/.*\/area-[^/]*\.journal$/;
const POINTS = FAULT_POINTS.filter((name) => /^(attach|detach)\./.test(name));

/** What a backup program has of the device: generation and number. */
interface Backup {
  readonly generation: string;
  readonly number: number;
}

class World {
  readonly machine = new SimMachine({ seed: 1 });
  driver!: Driver;
  #isUp = false;

  constructor() {
    this.machine.addDisk("sda", { sizeBytes: DISK_BYTES });
  }

  async run<Value>(work: Promise<Value>): Promise<Value> {
    return (await this.machine.run(work)) as Value;
  }

  begin(): Promise<Driver> {
    return startDriver(this.machine, () => undefined);
  }

  async start(): Promise<void> {
    this.driver = await this.run(this.begin());
    this.#isUp = true;
  }

  async attach(): Promise<void> {
    await this.run(this.driver.attach(DEVICE, { persistent: true }));
  }

  async take(persistent = false): Promise<string> {
    const options = { devices: [DEVICE], stores: STORES, limitBytes: LIMIT_BYTES, persistent };
    const { id } = await this.run(this.driver.snapshotCreate(options));
    await this.run(this.driver.snapshotTake(id));
    return id;
  }

  /** A full backup: what is written from now on is asked for later. */
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

  /** @returns whether it came to that point, and was killed there */
  async dieAt(point: FaultPoint, work: () => Promise<unknown>): Promise<boolean> {
    let isKilled = false;
    faults.onPoint = (met) => {
      if (this.machine.isDying) throw new Killed();
      if (met !== point || isKilled) return;
      isKilled = true;
      this.machine.die();
    };
    try {
      await this.machine.run(work());
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
    } finally {
      faults.onPoint = () => undefined;
    }
    await this.machine.settle();
    if (isKilled) this.#isUp = false;
    return isKilled;
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

  /** Writes where a user would: through the front, or to the original where there is none. */
  async write(): Promise<void> {
    const tracker = this.#isUp ? (await this.run(this.driver.status())).trackers[0] : undefined;
    const user = this.machine.user(tracker?.front_live === true ? tracker.front : DEVICE);
    await this.machine.run(user.write(WRITTEN_AT, new Uint8Array(4096).fill(7), true));
    user.close();
  }

  /** Who would write now does not wait for a front. */
  get mayWrite(): boolean {
    const devices = [...this.machine.ublk.devices.values()];
    return this.#isUp || devices.every(({ state }) => state === UblkState.DEAD);
  }

  async reboot(): Promise<void> {
    this.machine.cut();
    await this.machine.settle();
    await this.start();
  }

  /** The device has a front, a new one where it was deleted, and no user waits. */
  async assertServes(): Promise<void> {
    const { trackers, waiting } = await this.run(this.driver.status());
    assert.equal(waiting, []);
    const told = trackers.map((one) => [one.device, one.front_live, one.persistence.state]);
    assert.equal(told, [[DEVICE, true, "on"]]);
  }

  /** @returns "continues", "missed" or "anew": what the next backup is told about what was written */
  async verdict({ generation, number }: Backup): Promise<"continues" | "missed" | "anew"> {
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
            if (offset <= WRITTEN_AT && WRITTEN_AT < offset + length) marked.push(offset);
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

async function within(play: (world: World) => Promise<void>): Promise<void> {
  const world = new World();
  try {
    await world.start();
    await play(world);
  } finally {
    world.machine.close();
  }
}

type Operation = "attach" | "detach" | "stop";

/** @returns whether the daemon came through that point, and was killed there */
async function interrupt(world: World, operation: Operation, point: FaultPoint): Promise<boolean> {
  const { driver } = world;
  if (operation === "detach") return world.dieAt(point, () => driver.detach(DEVICE));
  if (operation === "stop") return world.dieAt(point, () => driver.stop());
  return world.dieAt(point, () => driver.attach(DEVICE, { persistent: true }));
}

for (const operation of ["attach", "detach", "stop"] as const) {
  for (const next of ["the next daemon", "no daemon"]) {
    test(`killed at each step of ${operation}, then ${next}: no write is missed`, () =>
      eachPoint(operation, next === "the next daemon"));
  }
}

async function eachPoint(operation: Operation, isFollowed: boolean): Promise<void> {
  let killed = 0;
  let written = 0;
  const prefix = operation === "attach" ? "attach." : "detach.";
  for (const point of POINTS.filter((name) => name.startsWith(prefix))) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      if (operation === "attach") await world.run(world.driver.detach(DEVICE));
      if (!(await interrupt(world, operation, point))) return;
      killed++;
      if (isFollowed) await world.start();
      if (!world.mayWrite) return;
      written++;
      await world.write();
      await world.reboot();
      assert.is.not(await world.verdict(backup), "missed", point);
    });
  }
  assert.ok(killed >= 5, `${killed} points`);
  assert.ok(written >= 3, `written after ${written}`);
}

test("a front that somebody deletes while no daemon runs ends with the next one", () =>
  within(async (world) => {
    await world.attach();
    const backup = await world.backup();
    world.kill();
    await world.machine.settle();
    await world.deleteFront();
    // Before there is a daemon again.
    await world.write();
    await world.start();
    await world.reboot();
    assert.is(await world.verdict(backup), "anew");
  }));

for (const persistent of [false, true]) {
  const kind = persistent ? "persistent" : "taken";
  test(`the same, of a tracker in a ${kind} snapshot`, () =>
    within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.take(persistent);
      world.kill();
      await world.machine.settle();
      await world.deleteFront();
      await world.write();
      await world.start();
      await world.assertServes();
      await world.reboot();
      for (const { id } of await world.run(world.driver.snapshotCollect())) {
        await world.run(world.driver.snapshotDestroy(id));
      }
      assert.is(await world.verdict(backup), "anew");
    }));
}

test("killed while a reboot's devices are attached again: those of a taken snapshot are, too", () =>
  within(async (world) => {
    await world.attach();
    await world.take(true);
    await world.write();
    world.kill();
    world.machine.cut();
    await world.machine.settle();
    // Its front is on record, and never was there.
    assert.ok(await world.dieAt("attach.queue-started", () => world.begin()));
    await world.start();
    await world.assertServes();
  }));

test("one whose lost image cannot be taken off the medium gets no front before the next start", () =>
  within(async (world) => {
    await world.attach();
    await world.take(true);
    world.kill();
    await world.machine.settle();
    await world.deleteFront();
    const { files } = world.machine;
    const unlink = files.unlink.bind(files);
    let refusals = 0;
    files.unlink = (path) => {
      if (!AREA_JOURNAL.test(path)) return unlink(path);
      refusals++;
      throw new SystemError(Errno.EIO, "unlink", path);
    };
    await world.start();
    assert.ok(refusals > 0);
    const { trackers, waiting } = await world.run(world.driver.status());
    assert.equal([trackers, waiting], [[], []], "its writes would make no copies");
    files.unlink = unlink;
    world.kill();
    await world.machine.settle();
    await world.start();
    await world.assertServes();
  }));

test("one that somebody deletes while the daemon runs: neither a cut nor a detach hides it", async () => {
  for (const isDetached of [false, true]) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.deleteFront();
      await world.write();
      if (isDetached) {
        await world.run(world.driver.detach(DEVICE));
        await world.attach();
        assert.is(await world.verdict(backup), "anew");
        return;
      }
      await world.reboot();
      assert.is(await world.verdict(backup), "anew");
    });
  }
});

test("a front that was there to the end of its boot: the map continues", async () => {
  for (const daemon of ["lives", "was killed", "was followed"]) {
    await within(async (world) => {
      await world.attach();
      const backup = await world.backup();
      await world.write();
      if (daemon !== "lives") world.kill();
      await world.machine.settle();
      if (daemon === "was followed") await world.start();
      await world.reboot();
      assert.is(await world.verdict(backup), "continues", daemon);
    });
  }
});

test("a stop that was killed: the next daemon attaches the device; a detach that was: it does not", async () => {
  for (const operation of ["stop", "detach"] as const) {
    await within(async (world) => {
      await world.attach();
      assert.ok(await interrupt(world, operation, "detach.front-stopped"));
      await world.start();
      const { trackers, waiting } = await world.run(world.driver.status());
      assert.equal(waiting, []);
      const told = trackers.map((one) => [one.device, one.front_live, one.persistence.state]);
      assert.equal(told, operation === "stop" ? [[DEVICE, true, "on"]] : []);
    });
  }
});

test.run();
