/**
 * The exchange of a node's tables, and the repair after a refused one: the kernel then keeps the node suspended, its
 * users wait, and the program that asked may have been killed before it could resume the node.
 *
 * ```
 *   mark, locked ─▶ exchange ─┬─▶ done    ─▶ mark removed
 *                             └─▶ refused ─▶ lock free ─▶ our table dropped ─▶ resumed ─▶ mark removed
 *                                              └───────────── again ◀───────────┘
 * ```
 *
 * The mark is a file in the state directory. It is locked as long as the program lives, and exists as long as the
 * exchange may have left the node suspended: a daemon that finds it continues where its predecessor ended.
 */
import { closeSync, existsSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "@blksnap/errors";
import type { DeviceMapper, LinuxBlockError, MappedNode, Splice } from "@blksnap/linux-block";
import { tryLockFile } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { StateFile } from "../records/file-names.js";
import {
  EXCHANGE_FENCE_INTERVAL_MS,
  EXCHANGE_FENCE_TIMEOUT_MS,
  RESUME_INTERVAL_MS,
  RESUME_PATIENCE_MS,
} from "../time-limits.js";
import type { Tracker } from "./tracker.js";

type Context = Pick<DriverContext, "state" | "logger">;
type Exchanged = Pick<Tracker, "device"> & { readonly splice: Splice };

export class LiveExchange {
  readonly #context: Context;
  readonly #dm: DeviceMapper;
  readonly #intervalMs: number;
  /** Marks whose nodes are being resumed, with the last error, so that each error is logged once. */
  readonly #left = new Map<string, string>();

  constructor(context: Context, dm: DeviceMapper, intervalMs: number = RESUME_INTERVAL_MS) {
    this.#context = context;
    this.#dm = dm;
    this.#intervalMs = intervalMs;
  }

  /**
   * Exchanges the tables. The caller keeps LVM from the node.
   * @param what for the log
   * @throws LinuxBlockError, Error: refused; the node continues with its old table as soon as it can be resumed
   */
  async run({ device, splice }: Exchanged, what: "splice" | "return"): Promise<void> {
    const { number } = splice.node;
    // An exchange would end another program's suspension.
    if (this.#dm.node(number)?.isSuspended === true) {
      throw new Error("another program has suspended its node");
    }
    const name = StateFile.exchange.name(number);
    const fd = openSync(this.#pathOf(name), "a", 0o600);
    /** Whether the exchange may have left the node suspended. */
    let isLeft = true;
    try {
      if (!tryLockFile(fd)) throw new Error("an earlier exchange of its tables has not ended");
      const how = what === "return" ? "return" : "exchange";
      const tookUs = await this.#dm.exchange(number, fd, how).catch(async (error: unknown) => {
        isLeft = (error as Partial<LinuxBlockError>).code !== "EXCHANGE_NOT_BEGUN";
        if (isLeft) await this.#endRefused({ device, splice });
        else await this.dropWaiting({ device, splice });
        throw error;
      });
      isLeft = false;
      const withoutIoMs = Math.ceil(tookUs / 100) / 10;
      this.#context.logger.info({ device, what, withoutIoMs }, "its node leads elsewhere");
    } finally {
      closeSync(fd);
      // A program that suspends the node after an exchange, or before one could begin, resumes it, too.
      const node = isLeft ? this.#dm.node(number) : undefined;
      if (!this.#isSettled(name, node)) void this.#resumeLater(name, number, splice);
    }
  }

  /** The exchange's program may have been killed before it could resume the node. */
  async #endRefused({ device, splice }: Exchanged): Promise<void> {
    const { number } = splice.node;
    await this.dropWaiting({ device, splice });
    await this.#dm.resume(number).catch((error: unknown) => {
      const text = "a node is not resumed; retrying";
      this.#context.logger.error({ node: number, err: error }, text);
    });
  }

  /** Drops our inactive table. Failures are logged. */
  async dropWaiting({ device, splice }: Exchanged): Promise<void> {
    const { number, clone } = splice.node;
    await this.#dm.dropWaiting(number, splice.front, clone).catch((error: unknown) => {
      this.#context.logger.error({ device, err: error }, "an inactive table is left");
    });
  }

  /** Waits for exchanges of an earlier daemon that are in progress, and resumes nodes that they have left suspended. */
  async fence(splices: readonly Splice[]): Promise<void> {
    for (const name of this.#context.state.fileNames()) {
      const [number] = StateFile.exchange.idsIn(name) ?? [];
      if (number === undefined) continue;
      const splice = splices.find(({ node }) => node.number === number);
      const deadlineMs = performance.now() + EXCHANGE_FENCE_TIMEOUT_MS;
      while (this.#isLocked(name) && performance.now() < deadlineMs) {
        await sleep(EXCHANGE_FENCE_INTERVAL_MS);
      }
      if (await this.#tryResume(name, number, splice)) continue;
      void this.#resumeLater(name, number, splice);
    }
  }

  /**
   * Waits a while for nodes that may be suspended, because no process resumes them after this daemon's end. Returns a
   * text for each that stays suspended; their marks stay for the next daemon.
   */
  async end(patienceMs: number = RESUME_PATIENCE_MS): Promise<readonly string[]> {
    const deadlineMs = performance.now() + patienceMs;
    while (this.#left.size > 0 && performance.now() < deadlineMs) await sleep(this.#intervalMs);
    return [...this.#left].map(([name, why]) => {
      const [number = ""] = StateFile.exchange.idsIn(name) ?? [];
      const what = `the node ${this.#dm.node(number)?.name ?? number} may stay suspended; its users wait`;
      return `${what}${why === "" ? "" : `: ${why}`} ("A volume stays suspended" in docs/runbook.md)`;
    });
  }

  /** Retries until the node is not suspended, or is gone; also while its device is detached. */
  async #resumeLater(name: string, number: string, splice: Splice | undefined): Promise<void> {
    if (this.#left.has(name)) return;
    this.#left.set(name, "");
    const text =
      "a node may stay suspended, and its users wait: it is resumed as soon as it can be";
    this.#context.logger.fatal({ node: number }, text);
    do await sleep(this.#intervalMs, undefined, { ref: false });
    while (!(await this.#tryResume(name, number, splice, true)));
    this.#left.delete(name);
    this.#context.logger.warn({ node: number }, "a node is no longer suspended");
  }

  /**
   * Returns whether nothing is left to do.
   * @param drops drops our table even if the node is not suspended: an interrupted exchange makes it inactive again
   */
  async #tryResume(
    name: string,
    number: string,
    splice: Splice | undefined,
    drops: boolean = false,
  ): Promise<boolean> {
    try {
      const node = this.#nodeOf(number, splice);
      const isDue = node?.isSuspended === true || (drops && splice !== undefined);
      if (node !== undefined && isDue && !this.#isLocked(name)) await this.#resume(node, splice);
    } catch (error) {
      const isNew = this.#left.get(name) !== messageOf(error);
      if (isNew) this.#context.logger.error({ node: number, err: error }, "a node is not resumed");
      if (this.#left.has(name)) this.#left.set(name, messageOf(error));
    }
    return this.#isSettled(name, this.#nodeOf(number, splice));
  }

  /** LVM may have suspended the node by now: waits until it is done, and makes no table of LVM's live. */
  #resume(node: MappedNode, splice: Splice | undefined): Promise<void> {
    const { number } = node;
    return this.#dm.exclusively(node, async () => {
      if (this.#nodeOf(number, splice) === undefined) return;
      if (splice !== undefined) {
        await this.#dm.dropWaiting(number, splice.front, splice.node.clone);
      }
      const isLeft = this.#nodeOf(number, splice)?.isSuspended === true;
      if (isLeft) await this.#dm.resume(number);
    });
  }

  /**
   * Removes the mark if it is no longer needed. Checks and acts at once: another exchange may begin at any time.
   * @param node that the exchange may have left suspended
   */
  #isSettled(name: string, node: MappedNode | undefined): boolean {
    if (this.#isLocked(name) || node?.isSuspended === true) return false;
    try {
      this.#context.state.removeFile(name);
    } catch (error) {
      this.#context.logger.error({ name, err: error }, "the mark of an exchange is left");
    }
    return true;
  }

  /** Another node may have the number by now. For an undone attach only the number is known. */
  #nodeOf(number: string, splice: Splice | undefined): MappedNode | undefined {
    return splice === undefined ? this.#dm.node(number) : this.#dm.nodeOf(splice);
  }

  /** True also if that cannot be determined. */
  #isLocked(name: string): boolean {
    const path = this.#pathOf(name);
    if (!existsSync(path)) return false;
    let fd: number | undefined;
    try {
      fd = openSync(path, "r+");
      return !tryLockFile(fd);
    } catch {
      return true;
    } finally {
      if (fd !== undefined) closeSync(fd);
    }
  }

  #pathOf(name: string): string {
    return join(this.#context.state.path, name);
  }
}
