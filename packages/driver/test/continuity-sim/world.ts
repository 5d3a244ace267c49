/**
 * A machine with one persistent tracker: boots of this system with and without the daemon, of a rescue disk, by the
 * firmware and by kexec; stops, deaths and power cuts; writes through the front, and by others in every gap. The
 * verdict at each attach is compared with what happened.
 */

import type { BootMark } from "@blksnap/linux-block";
import {
  type EarlierTracking,
  extSession,
  isEndOfBoot,
  judgeContinuity,
  type PersistedIdentity,
} from "@blksnap/linux-block";
import type { Dice } from "@blksnap/testing";
import type { JudgeOptions } from "../../../linux-block/dist/continuity/continuity.js";
import { chainBoot } from "../../dist/records/boot-chain.js";
import { Disk } from "./disk.js";
import {
  countersOf,
  type End,
  identityOf,
  type Judge,
  type Plants,
  probeOf,
  promiseOf,
  type Seen,
  type Setting,
  seesMove,
  witnessOf,
} from "./setting.js";

export class World {
  readonly seen: Seen = { continued: 0, cut: 0, foreignFound: 0, promised: 0 };
  readonly history: string[] = [];
  readonly #dice: Dice;
  readonly #setting: Setting;
  readonly #judge: Judge;
  readonly #ignoresKexec: boolean;
  readonly #ignoresSoftReboot: boolean;
  readonly #disk: Disk;

  // The kernel.
  #bootId = "";
  #boots = 0;
  #diskseq = 1;
  #writtenSectors = 0;
  #times = 1_000;
  /** What a power cut leaves: the last writes may be missing. */
  #timesOnMedium = 1_000;
  #sleptMs = 0;
  /** Where the device begins on its disk, or in its file. */
  #startBytes = 0;
  #resets = 40;
  #isKexec = false;
  #kexecLoaded = false;
  #isStopping = false;
  /** The same kernel continues. */
  #isSoft = false;
  #hasDaemon = false;

  // What is on the medium.
  #lock = "";
  #record: EarlierTracking | undefined;
  #mark: BootMark | undefined;

  // What happened since tracking ended.
  #isTracking = false;
  #end: End = "none";
  #endBoot = 0;
  #endDiskseq = 0;
  #endSleptMs = 0;
  #foreign: string | undefined;
  #systemsSince = 0;
  #sessionNoted = false;
  #wasUnmounted = false;
  #fileSystemUsed = false;

  constructor(dice: Dice, setting: Setting, plants: Plants = {}) {
    this.#dice = dice;
    this.#setting = setting;
    this.#judge = plants.judge ?? judgeContinuity;
    this.#ignoresKexec = plants.ignoresKexec ?? false;
    this.#ignoresSoftReboot = plants.ignoresSoftReboot ?? false;
    this.#disk = new Disk(setting.contents);
    this.#startKernel(false);
  }

  /** Returns what is wrong with the verdict, if there was one. */
  async turn(): Promise<string | undefined> {
    if (!this.#hasDaemon) {
      if (this.#bootId === "rescue" || this.#dice.below(2) === 0) {
        this.#elsewhere();
        return undefined;
      }
      await this.#startDaemon();
      return undefined;
    }
    if (!this.#isTracking) return this.#untracked();
    await this.#tracked();
    return undefined;
  }

  // ---- while it is tracked ----

  async #tracked(): Promise<void> {
    const disk = this.#disk;
    switch (this.#dice.below(9)) {
      case 0:
      case 1:
        if (disk.isMounted) disk.writeFile(this.#dice, this.#dice.below(2) === 0);
        else if (!disk.isFileSystem) disk.writeMiddle(this.#dice);
        else return;
        this.#count();
        return;
      case 2:
      case 3:
        if (!disk.isFileSystem) return;
        if (disk.isMounted) disk.unmount();
        else disk.mount();
        this.#sessionNoted = false;
        this.#count();
        return;
      case 4:
      case 5:
        this.#noteStart();
        return;
      case 6:
        if (disk.isMounted) return;
        await this.#endInOrder(this.#dice.pick(["detached", "stopped"]));
        return;
      case 7:
        await this.#shutDown();
        return;
      default:
        this.#endAtOnce(this.#dice.pick(["died", "cut"]));
    }
  }

  /** As MountWatch and TrackerPersistence do. */
  #noteStart(): void {
    const record = this.#record;
    if (record === undefined) return;
    const found = extSession(this.#disk.start, this.#disk.capacityBytes);
    const proof = { unmounted: null, session: found?.session ?? null };
    const identity = { ...record.identity };
    this.#record = { ...record, identity, content: { ...record.content, proof } };
    this.#sessionNoted = found !== undefined;
  }

  async #endInOrder(end: "detached" | "stopped" | "closed"): Promise<void> {
    const probe = probeOf({
      isStopping: this.#isStopping,
      isSoft: this.#isSoft && !this.#ignoresSoftReboot,
      kexecLoaded: this.#kexecLoaded && !this.#ignoresKexec,
    });
    const closing = end === "closed" && (await isEndOfBoot(probe));
    this.#record = { ...(await this.#facts()), clean: true, closing };
    this.#timesOnMedium = this.#times;
    this.#ended(end === "closed" && !closing ? "stopped" : end);
    if (end !== "detached") this.#hasDaemon = false;
  }

  async #shutDown(): Promise<void> {
    if (this.#disk.isMounted) {
      this.#disk.unmount();
      this.#count();
    }
    this.#kexecLoaded = this.#dice.below(4) === 0;
    this.#isStopping = true;
    this.#isSoft = this.#dice.below(4) === 0;
    await this.#endInOrder("closed");
    if (this.#isSoft) {
      this.note("soft reboot");
      this.#isStopping = false;
      return;
    }
    this.#nextBoot(this.#kexecLoaded);
  }

  #endAtOnce(end: "died" | "cut"): void {
    this.#hasDaemon = false;
    // Its users are gone with the power, or wait without end.
    this.#ended(end);
    this.#disk.isMounted = false;
    if (end === "cut") this.#nextBoot(false);
  }

  #ended(end: End): void {
    this.note(end);
    this.#isTracking = false;
    this.#end = end;
    this.#endBoot = this.#boots;
    this.#endDiskseq = this.#diskseq;
    this.#endSleptMs = this.#sleptMs;
    this.#foreign = undefined;
    this.#systemsSince = 0;
    this.#wasUnmounted = this.#disk.isUnmountedInOrder;
    this.#fileSystemUsed = false;
  }

  // ---- while it is not tracked ----

  async #untracked(): Promise<string | undefined> {
    if (this.#dice.below(3) > 0) return this.#attach();
    if (this.#dice.below(2) === 0) {
      this.note("daemon stopped");
      this.#hasDaemon = false;
      return undefined;
    }
    this.#elsewhere();
    return undefined;
  }

  /**
   * An operator who keeps the guarantee lets no program write after a crash, nor in boots without the daemon; a device
   * that a daemon of a later boot has not attached may be written.
   */
  get #mayWrite(): boolean {
    if (!this.#setting.trustReboots) return true;
    if (this.#hasDaemon && this.#boots !== this.#endBoot) return true;
    return ["detached", "stopped"].includes(this.#end) && this.#bootId !== "rescue";
  }

  #elsewhere(): void {
    const dice = this.#dice;
    switch (dice.below(8)) {
      case 0:
      case 1:
        if (this.#mayWrite) this.#foreignWrite();
        return;
      case 2:
        // For a time at another machine, where it may be written.
        if (this.#setting.kind === "image file" || this.#setting.trustReboots) return;
        this.note("plugged in again");
        if (dice.below(2) === 0) this.#foreignWrite();
        this.#diskseq++;
        this.#writtenSectors = 0;
        return;
      case 3:
        this.#hasDaemon = false;
        if (dice.below(3) === 0) {
          this.note("power cut");
          this.#times = this.#timesOnMedium;
          this.#nextBoot(false);
        } else this.#nextBoot(dice.below(4) === 0);
        return;
      case 4:
        if (dice.below(3) === 0) this.#sleep();
        return;
      case 5:
        if (dice.below(3) === 0) this.#layAnew();
        return;
      default:
        return;
    }
  }

  /**
   * A partition that is made again with another start, a loop device with another offset: the same size and edges, and
   * no counter moves.
   */
  #layAnew(): void {
    if (this.#setting.kind === "image file") return;
    this.#startBytes += 2 ** 20;
    this.#disk.writeMiddle(this.#dice);
    this.#foreign = `laid over other bytes in boot ${this.#bootId} after it was ${this.#end}`;
    this.#fileSystemUsed = true;
    this.note("LAID ANEW");
  }

  /** The disk is in another machine while this one is off. */
  #move(): void {
    if (this.#dice.below(4) > 0 || !seesMove(this.#setting, this.#disk.proves)) return;
    this.note("moved while off");
    this.#foreignWrite();
  }

  /** Hibernates; another system may run meanwhile. */
  #sleep(): void {
    this.note("slept");
    this.#sleptMs += 60_000;
    if (this.#setting.kind === "image file" || this.#setting.trustReboots) return;
    this.#resets += 2;
    if (this.#dice.below(2) === 0) return;
    const [sectors, times] = [this.#writtenSectors, this.#times];
    this.#foreignWrite();
    this.#writtenSectors = sectors;
    this.#times = times;
  }

  #foreignWrite(): void {
    if (!this.#disk.useElsewhere(this.#dice)) return;
    this.#fileSystemUsed = true;
    this.#foreign = `written in boot ${this.#bootId} after it was ${this.#end}`;
    this.note("FOREIGN WRITE");
    this.#count();
  }

  // ---- the kernel ----

  #count(): void {
    this.#writtenSectors += 8;
    this.#times++;
  }

  #startKernel(isRescue: boolean): void {
    this.#boots++;
    this.#bootId = isRescue ? "rescue" : `b-${this.#boots}`;
    this.#diskseq = 1;
    this.#sleptMs = 0;
    this.#timesOnMedium = this.#times;
    this.#writtenSectors = 0;
    this.#isStopping = false;
    this.#kexecLoaded = false;
    this.#mark = undefined;
    this.note(`${this.#isKexec ? "kexec" : "boot"} ${this.#bootId}`);
  }

  #nextBoot(byKexec: boolean): void {
    this.#isKexec = byKexec;
    if (!byKexec) {
      this.#resets++;
      this.#move();
    }
    // If it was not tracked at the end, nothing has closed it.
    this.#systemsSince++;
    this.#startKernel(this.#dice.below(4) === 0);
  }

  async #startDaemon(): Promise<void> {
    this.note("daemon started");
    this.#hasDaemon = true;
    const text = {
      read: async () => this.#lock,
      write: async (written: string) => {
        this.#lock = written;
      },
    };
    this.#mark = await chainBoot(
      text,
      async () => this.#bootId,
      async () => countersOf(this.#setting, this.#resets, !this.#isKexec),
    );
  }

  async #facts(): Promise<PersistedIdentity> {
    const content = await this.#disk.digest();
    return {
      capacityBytes: this.#disk.capacityBytes,
      logicalBlockBytes: 512,
      identity: { ...identityOf(this.#setting, this.#startBytes), contentUuid: content.uuid },
      content,
      witness: witnessOf(this.#setting, {
        bootId: this.#bootId,
        diskseq: this.#diskseq,
        sleptMs: this.#sleptMs,
        sectors: this.#writtenSectors,
        times: this.#times,
      }),
      ...(this.#mark === undefined ? {} : { boot: this.#mark }),
    };
  }

  async #attach(): Promise<string | undefined> {
    const facts = await this.#facts();
    const problem = this.#record && this.#compare(this.#record, facts);
    this.#record = { ...facts, clean: false, serving: true };
    this.#isTracking = true;
    this.#sessionNoted = typeof facts.content.proof?.session === "string";
    this.note("attached");
    return problem;
  }

  #compare(record: EarlierTracking, facts: PersistedIdentity): string | undefined {
    const options: JudgeOptions = { trustReboots: this.#setting.trustReboots };
    const verdict = this.#judge(record, facts, options);
    const told = JSON.stringify(verdict);
    this.note(told);
    if (verdict.verdict === "continue") this.seen.continued++;
    else this.seen.cut++;
    if (this.#foreign !== undefined) {
      if (verdict.verdict === "continue") return `it continues, and was ${this.#foreign}`;
      this.seen.foreignFound++;
      return undefined;
    }
    const promise = this.#promise();
    if (promise === undefined) return undefined;
    this.seen.promised++;
    return verdict.verdict === "continue" ? undefined : `promised: ${promise}, and ${told}`;
  }

  #promise(): string | undefined {
    return promiseOf(this.#setting, {
      end: this.#end,
      isClean: ["detached", "stopped", "closed"].includes(this.#end),
      inOneBoot: this.#boots === this.#endBoot,
      isSameDisk: this.#diskseq === this.#endDiskseq,
      sleptSinceMs: this.#sleptMs - this.#endSleptMs,
      sleptMs: this.#sleptMs,
      isProven: this.#wasUnmounted && this.#disk.proves && !this.#fileSystemUsed,
      sessionNoted: this.#sessionNoted,
      isNext: this.#systemsSince === 1 && !this.#isKexec && this.#diskseq === 1,
    });
  }

  note(what: string): void {
    this.history.push(what);
  }
}
