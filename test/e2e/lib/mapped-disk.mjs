/** A device-mapper disk whose behaviour is changed while it is in use. */
import { run } from "./command.mjs";
import { mapped } from "./device-mapper.mjs";

/** Longer than any limit: the test that withholds requests also releases them. */
const KEPT_MS = 3_600_000;

export class MappedDisk {
  path;
  #load;
  #below;
  #sectors;
  /** From now on its requests get no reply, including those in flight, until resume(). */
  hang;
  resume;

  constructor({ path, load, suspend, resume }, below, sectors) {
    this.path = path;
    this.hang = suspend;
    this.resume = resume;
    this.#load = load;
    this.#below = below;
    this.#sectors = sectors;
  }

  /** A healthy disk that passes everything on to the one below. */
  static async create(t, below, sizeBytes) {
    const sectors = sizeBytes / 512;
    const node = await mapped(t, [`0 ${sectors} linear ${below} 0`]);
    const disk = new MappedDisk(node, below, sectors);
    t.onFailure(() => disk.heal());
    return disk;
  }

  /** With its next change of behaviour it has another size, of at most that of the disk below. */
  resize(sizeBytes) {
    this.#sectors = sizeBytes / 512;
  }

  /** From now on it replies, also to withheld requests. */
  heal() {
    return this.#load([`0 ${this.#sectors} linear ${this.#below} 0`]);
  }

  /** Every request fails. */
  break() {
    return this.#load([`0 ${this.#sectors} error`]);
  }

  /**
   * dm-flakey: by turns healthy for `upS` seconds and flakey for `downS`.
   *
   * @param {"error_reads" | "error_writes"} fault what fails in its bad seconds
   */
  async flake(fault, upS, downS) {
    await run(["modprobe", "dm-flakey"]);
    await this.#load([`0 ${this.#sectors} flakey ${this.#below} 0 ${upS} ${downS} 1 ${fault}`]);
  }

  /** From now on no write is answered until heal(); a flush is. */
  keepWrites() {
    return this.#delay({ writesMs: KEPT_MS });
  }

  /** From now on no read is answered until heal(). */
  keepReads() {
    return this.#delay({ readsMs: KEPT_MS });
  }

  /** How many reads and writes it keeps. */
  async kept() {
    const words = (await run(["dmsetup", "status", this.path])).trim().split(/\s+/);
    const [reads, writes] = words.slice(words.indexOf("delay") + 1).map(Number);
    return reads + writes;
  }

  async #delay({ readsMs = 0, writesMs = 0 }) {
    await run(["modprobe", "dm-delay"]);
    const classes = [readsMs, writesMs, 0].map((delayMs) => `${this.#below} 0 ${delayMs}`);
    await this.#load([`0 ${this.#sectors} delay ${classes.join(" ")}`]);
  }
}
