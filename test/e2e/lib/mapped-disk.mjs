/** A device-mapper disk whose behaviour is changed while it is in use. */
import { run } from "./command.mjs";
import { mapped } from "./device-mapper.mjs";

export class MappedDisk {
  path;
  #load;
  #below;
  #sectors;
  /** From now on its requests are taken and not answered, those on their way too, until resume(). */
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
    return new MappedDisk(node, below, sectors);
  }

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

  /** dm-delay: each write is passed on so much later. */
  async delayWrites(delayMs) {
    await run(["modprobe", "dm-delay"]);
    const reads = `${this.#below} 0 0`;
    await this.#load([`0 ${this.#sectors} delay ${reads} ${this.#below} 0 ${delayMs}`]);
  }

  /** dm-delay: each read is passed on so much later. */
  async delayReads(delayMs) {
    await run(["modprobe", "dm-delay"]);
    const writes = `${this.#below} 0 0`;
    await this.#load([`0 ${this.#sectors} delay ${this.#below} 0 ${delayMs} ${writes}`]);
  }
}
