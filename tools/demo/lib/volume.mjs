/** One volume of the demo: an image file with ext4, its front, its image, and where they are mounted. */
import { existsSync, mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun } from "./program.mjs";

const VOLUME_BYTES = 128 * 2 ** 20;

export class Volume {
  name;
  /** The original. */
  device;
  /** The live file system is mounted here, by its front. */
  live;
  /** The snapshot's image is mounted here. */
  frozen;
  front;
  image;
  /** Names of the files that it was filled with. */
  names = [];
  bytes = 0;
  listPath;
  listed = 0;
  #cleanup;
  #unmounts = new Map();

  constructor(folder, name, cleanup) {
    this.name = name;
    this.device = join(folder, `${name}.img`);
    this.live = join(folder, name);
    this.frozen = join(folder, `${name}-image`);
    this.listPath = join(folder, `${name}.sha256`);
    this.#cleanup = cleanup;
    mkdirSync(this.live);
    mkdirSync(this.frozen);
    writeFileSync(this.device, "");
    truncateSync(this.device, VOLUME_BYTES);
  }

  get liveFiles() {
    return join(this.live, "files");
  }

  get frozenFiles() {
    return join(this.frozen, "files");
  }

  async mount(device, folder, options) {
    const words = ["mount", ...options, device, folder];
    await mustRun(words);
    const undo = this.#cleanup.add(`unmounting ${folder}`, () => mustRun(["umount", folder]));
    this.#unmounts.set(folder, undo);
    return words;
  }

  async unmount(folder) {
    await this.#unmounts.get(folder)();
    this.#unmounts.delete(folder);
    return ["umount", folder];
  }

  /** Its created devices that still exist. */
  remainingDevices() {
    return [this.front, this.image].filter((path) => path !== undefined && existsSync(path));
  }
}
