/**
 * The life of snapshots over all devices, in small steps, so that anything else can happen in between.
 *
 *     NONE -> ATTACHING -> HOLDING -> (all drained: the instant) -> SWITCHING -> ACTIVE -> DROPPING
 *                 |            |                                       |                      |
 *                 +------------+---------- roll back ------------------+----> DROPPING -------+-> NONE
 */
import type { Random } from "./random.js";
import type { SimDevice } from "./sim-device.js";

export const Phase = {
  NONE: "none",
  ATTACHING: "attaching",
  HOLDING: "holding",
  SWITCHING: "switching",
  ACTIVE: "active",
  DROPPING: "dropping",
} as const;

type PhaseName = (typeof Phase)[keyof typeof Phase];

export class SnapshotCycle {
  phase: PhaseName = Phase.NONE;
  taken = 0;
  private members: SimDevice[] = [];
  private todo: SimDevice[] = [];
  private readonly devices: readonly SimDevice[];
  private readonly random: Random;
  private readonly trace: (text: () => string) => void;

  constructor(devices: readonly SimDevice[], random: Random, trace: (text: () => string) => void) {
    this.devices = devices;
    this.random = random;
    this.trace = trace;
  }

  /** True while an interrupted snapshot of these devices can be resumed after a crash. */
  get isCommitted(): boolean {
    return this.phase === Phase.ACTIVE;
  }

  isMember(device: SimDevice): boolean {
    return this.members.includes(device);
  }

  /** After a crash: a snapshot that was not complete is gone. */
  restart(): void {
    if (!this.isCommitted) {
      this.members = [];
      this.enter(Phase.NONE);
    }
  }

  /** Ends the snapshot, whatever its state. */
  end(): void {
    if (this.phase !== Phase.NONE && this.phase !== Phase.DROPPING) this.rollBack();
  }

  step(): void {
    const { random } = this;
    const underway = this.phase === Phase.ATTACHING || this.phase === Phase.SWITCHING;
    if ((underway || this.phase === Phase.HOLDING) && random.oneIn(60)) this.rollBack();
    else if (this.phase === Phase.NONE) this.begin();
    else if (this.phase === Phase.ATTACHING) this.attachOne();
    else if (this.phase === Phase.HOLDING) this.holdOne();
    else if (this.phase === Phase.SWITCHING) this.switchOne();
    else if (this.phase === Phase.DROPPING) this.dropOne();
    else if (random.oneIn(24)) this.enter(Phase.DROPPING);
  }

  private begin(): void {
    this.members = this.devices.filter(() => !this.random.oneIn(4));
    if (this.members.length > 0) this.enter(Phase.ATTACHING);
  }

  private attachOne(): void {
    const device = this.todo.pop();
    if (device === undefined) this.enter(Phase.HOLDING);
    else device.attach();
  }

  private holdOne(): void {
    const device = this.todo.pop();
    if (device !== undefined) {
      if (!device.held) device.hold();
      return;
    }
    if (!this.members.every((member) => member.drained)) return;
    for (const member of this.members) member.freeze();
    this.enter(Phase.SWITCHING);
  }

  private switchOne(): void {
    const device = this.todo.pop();
    if (device !== undefined) {
      if (this.todo.length === 0) this.commit();
      device.switchAndRelease();
    }
  }

  private commit(): void {
    this.taken++;
    this.enter(Phase.ACTIVE);
  }

  private dropOne(): void {
    const device = this.todo.pop();
    if (device !== undefined) {
      device.drop();
    } else if (this.members.every((member) => member.area === null)) {
      this.members = [];
      this.enter(Phase.NONE);
    }
  }

  private rollBack(): void {
    this.trace(() => "snapshot rolls back");
    const members = this.members.filter((member) => member.area !== null && !member.dropping);
    this.enter(Phase.DROPPING);
    this.todo = members;
    for (const member of this.members) if (member.held) member.release();
  }

  private enter(phase: PhaseName): void {
    this.trace(() => `snapshot is ${phase}`);
    this.phase = phase;
    this.todo = this.members.slice();
    if (this.todo.length > 1 && this.random.oneIn(2)) this.todo.reverse();
  }
}
