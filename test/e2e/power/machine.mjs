/** A machine whose disks survive power cuts: boots of a VM with scripts, and cuts at any moment. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { runInVm } from "../../../tools/vm/index.mjs";
import { CPUS_PER_VM } from "../machines.mjs";
import { PowerDisk } from "./disk.mjs";
import { Tracked } from "./tracked.mjs";

const GUEST = join(dirname(fileURLToPath(import.meta.url)), "guest.mjs");
const BOOT_LIMIT_MS = 400_000;
const MIB = 2 ** 20;

/** Path in the guest, and size. */
export const DISKS = {
  raw: { path: "/dev/vda", bytes: 32 * MIB },
  files: { path: "/dev/vdb", bytes: 64 * MIB },
  state: { path: "/dev/vdc", bytes: 64 * MIB },
  store: { path: "/dev/vdd", bytes: 96 * MIB },
};
export const TRACKED = [DISKS.raw.path, DISKS.files.path];

/** The emulator broke the machine (tools/vm): the attempt proves nothing, and is repeated. */
export class EmulatorFault extends Error {}

export class Machine {
  /** By path in the guest: what must be in its next diff. */
  tracked = Object.fromEntries(TRACKED.map((path) => [path, new Tracked()]));
  disks = {};
  /** Sectors that all cuts have lost, because no flush had covered them. */
  lostSectors = 0;
  #random;
  #folder = mkdtempSync(join(tmpdir(), "blksnap-power-"));
  #writesLeft = Number.POSITIVE_INFINITY;
  #onLimit = () => {};

  constructor(random) {
    this.#random = random;
    for (const [name, { bytes }] of Object.entries(DISKS)) {
      this.disks[name] = new PowerDisk(join(this.#folder, `${name}.sock`), bytes, `power-${name}`);
    }
    for (const [name, { path }] of Object.entries(DISKS)) {
      this.disks[name].onWrite = (offset, length) => {
        this.tracked[path]?.written(offset, length);
        if (--this.#writesLeft === 0) this.#onLimit();
      };
    }
  }

  async open() {
    for (const disk of Object.values(this.disks)) await disk.listen();
  }

  async close() {
    for (const disk of Object.values(this.disks)) await disk.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /**
   * Boots, runs the script and cuts the power at its end.
   * @param {object[]} script steps of guest.mjs
   * @param {{cutAfterWrites?: number}} [options] cuts after so many writes since the first "load"
   * @returns {Promise<object[]>} what the guest told
   */
  async boot(script, { cutAfterWrites } = {}) {
    const events = [];
    const cut = new AbortController();
    let isCut = false;
    const cutPower = () => {
      if (isCut) return;
      isCut = true;
      for (const disk of Object.values(this.disks)) {
        this.lostSectors += disk.cutPower(this.#random);
      }
      cut.abort();
    };
    let line = "";
    let errors = "";
    const onStdout = (chunk) => {
      const lines = (line + chunk).split("\n");
      line = lines.pop();
      for (const text of lines) {
        // Output after the cut belongs to a machine without power.
        if (isCut || !text.startsWith("{")) continue;
        const event = JSON.parse(text);
        events.push(event);
        this.#follow(event);
        if (process.env.E2E_TRACE) console.log(`    ${text.slice(0, 200)}`);
        if (event.event === "load" && cutAfterWrites !== undefined) {
          if (this.#writesLeft > cutAfterWrites) this.#writesLeft = cutAfterWrites;
        }
        if (event.event === "done" || event.event === "failed") cutPower();
      }
    };
    this.#writesLeft = Number.POSITIVE_INFINITY;
    this.#onLimit = cutPower;
    const result = await runInVm({
      command: [process.execPath, GUEST, JSON.stringify(script)],
      cpus: CPUS_PER_VM,
      disks: Object.values(this.disks).map((disk) => disk.drive),
      timeLimitMs: BOOT_LIMIT_MS,
      signal: cut.signal,
      onStdout,
      onStderr: (chunk) => {
        errors += chunk;
      },
    });
    const failed = events.find(({ event }) => event === "failed");
    if (failed) throw new Error(`in the machine: ${failed.message}\n${failed.log}`);
    if (result.emulatorFault) throw new EmulatorFault("Oops: int3");
    if (!isCut) {
      const last = JSON.stringify(events.at(-1))?.slice(0, 400);
      throw new Error(
        `the machine ended by itself after ${last}\n${errors}\n${result.console.slice(-3000)}`,
      );
    }
    return events;
  }

  #follow(event) {
    if (event.event === "take begins") {
      for (const tracked of Object.values(this.tracked)) tracked.takeBegins();
    } else if (event.event === "taken") {
      for (const [device, number] of Object.entries(event.numbers)) {
        this.tracked[device].taken(number);
      }
    } else if (event.event === "marked") {
      this.tracked[event.device].written(event.offsetBytes, event.lengthBytes);
    }
  }
}
