/**
 * The files behind loop devices, as the kernel reports them: the name in sysfs may be gone, or name another file by
 * now.
 *
 * ```
 *   sysfs: names, disk sequence numbers ──the same as before──▶ what is known
 *                                       └─others─▶ all of them are asked, by another process, at once
 * ```
 *
 * The disk sequence number is another one whenever a loop device gets another file (drivers/block/loop.c,
 * disk_force_media_change()), so a result stays valid as long as the number is the same.
 */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ETIMEDOUT } from "@blksnap/errors";
import { type DeviceNumber, deviceKey, deviceNumber } from "../device-number.js";
import type { HelperCalls, LoopStatus } from "../helper-calls.js";
import { attribute } from "../sysfs-text.js";
import { blockIdentity, fileIdentity, type LoopBacking } from "./probe.js";

const ANSWER_LIMIT_MS = 5_000;

interface Known {
  readonly sequence: string;
  readonly loop: DeviceNumber;
  readonly backing: LoopBacking;
}

export class LoopTable {
  readonly #block: string;
  readonly #askAll: HelperCalls["loops"];
  readonly #known = new Map<string, Known>();
  #asking: Promise<void> | undefined;

  constructor(askAll: HelperCalls["loops"], sysfs = "/sys") {
    this.#block = join(sysfs, "block");
    this.#askAll = askAll;
  }

  /**
   * The file behind each loop device, by its name such as "loop0". A missing one has none, or the kernel did not
   * answer in time.
   */
  async read(timeoutMs: number): Promise<ReadonlyMap<string, Known>> {
    // An earlier query may not have seen the current state.
    await this.#asking?.catch(() => undefined);
    const present = this.#present();
    for (const [name, { sequence }] of this.#known) {
      if (present.get(name) !== sequence) this.#known.delete(name);
    }
    const unknown = [...present.keys()].filter((name) => !this.#known.has(name));
    if (unknown.length === 0) return this.#known;
    this.#asking = this.#ask(unknown, present, timeoutMs);
    try {
      await this.#asking;
    } finally {
      this.#asking = undefined;
    }
    return this.#known;
  }

  /** For TopologyProbe. @param node as "/dev/loop0" */
  async backingOf(node: string, device: DeviceNumber): Promise<LoopBacking | undefined> {
    const known = (await this.read(ANSWER_LIMIT_MS)).get(node.replace("/dev/", ""));
    // Without the node, or if it is another device's, sysfs has to do.
    if (known === undefined || deviceKey(known.loop) !== deviceKey(device)) return undefined;
    return known.backing;
  }

  async #ask(
    names: readonly string[],
    present: ReadonlyMap<string, string>,
    timeoutMs: number,
  ): Promise<void> {
    const nodes = names.map((name) => `/dev/${name}`);
    let answers = await this.#askAll(nodes, timeoutMs);
    if (answers.every((answer) => answer === -ETIMEDOUT) && nodes.length > 1) {
      // One that does not answer blocks the others.
      const alone = nodes.map((node) => this.#askAll([node], timeoutMs));
      answers = (await Promise.all(alone)).flat();
    }
    const now = this.#present();
    for (const [index, name] of names.entries()) {
      const answer = answers[index] as LoopStatus | number;
      const sequence = present.get(name) as string;
      if (typeof answer === "number" || now.get(name) !== sequence) continue;
      this.#known.set(name, { sequence, ...said(answer) });
    }
  }

  /** The disk sequence number of each loop device with a file. */
  #present(): Map<string, string> {
    const present = new Map<string, string>();
    for (const name of readdirSync(this.#block)) {
      if (!name.startsWith("loop")) continue;
      const folder = join(this.#block, name);
      if (attribute(folder, "loop/backing_file") === null) continue;
      present.set(name, attribute(folder, "diskseq") ?? "");
    }
    return present;
  }
}

function said(answer: LoopStatus): { readonly loop: DeviceNumber; readonly backing: LoopBacking } {
  const blockDevice = answer.special === 0 ? undefined : deviceNumber(answer.special);
  return {
    loop: deviceNumber(answer.loop),
    backing: {
      device: deviceNumber(answer.device),
      blockDevice,
      identity:
        blockDevice === undefined
          ? fileIdentity(answer.device, answer.inode)
          : blockIdentity(deviceKey(blockDevice)),
    },
  };
}
