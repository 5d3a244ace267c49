/**
 * Runs the administrator's hooks around a take: before the freeze, and after the thaw.
 *
 * ```
 *   pre 10-a ─▶ pre 20-b ─▶ take ─▶ post 20-b ─▶ post 10-a
 *                  └─fails─▶ no take ─▶ post 20-b ─▶ post 10-a
 * ```
 *
 * Post hooks run for those whose pre hook was started, in reverse order, whatever the result of the take. The state
 * directory lists them, so that the next daemon runs them if this one is killed in between. Takes with hooks are
 * serialised: otherwise one would release an application that another one has quiesced.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { ControlError, type DriverControl, type ErrorName } from "@blksnap/api";
import { Serial } from "@blksnap/uring";
import type { Logger } from "pino";
import type { NewDaemonEvent } from "../events/differences.js";
import { overlay } from "../overlay.js";
import { replaceFile } from "../replace-file.js";
import { type Hook, hooksIn } from "./hook-files.js";
import { type HookCall, runHook } from "./run-hook.js";

export interface TakeHooksOptions {
  readonly directory: string;
  /** Limit of all hooks before a take together, and of all after it; after it each has its own share. */
  readonly timeoutMs: number;
  /** The file that lists the hooks to run after the take. */
  readonly begunFile: string;
  readonly logger: Logger;
  readonly report: (event: NewDaemonEvent) => void;
}

interface Begun {
  readonly id: string;
  readonly devices: readonly string[];
  readonly names: string[];
}

type Snapshots = Pick<DriverControl, "snapshotCollect">;

export class TakeHooks {
  readonly #options: TakeHooksOptions;
  readonly #turns = new Serial();

  constructor(options: TakeHooksOptions) {
    this.#options = options;
  }

  /** Runs post hooks of a take that an earlier daemon did not finish. Never fails. */
  async finishEarlier(): Promise<void> {
    const begun = this.#readBegun();
    if (begun === undefined) return;
    try {
      await this.#turns.run(async () => this.#after(await this.#hooks(), begun, "failed"));
    } catch (error) {
      this.#options.logger.error({ err: error, begun }, "hooks of an earlier take have not ended");
    }
  }

  /**
   * Takes a snapshot with the hooks around it.
   * @throws ControlError HOOK_FAILED, and nothing was taken; errors of the take
   */
  async around<Answer>(
    driver: Snapshots,
    id: string,
    take: () => Promise<Answer>,
  ): Promise<Answer> {
    const hooks = await this.#hooks();
    if (hooks.length === 0) return await take();
    return await this.#turns.run(async () => {
      // The driver refuses an impossible take first, so that no database stops for it.
      const snapshots = await driver.snapshotCollect();
      const snapshot = snapshots.find((one) => one.id === id.toLowerCase());
      if (snapshot === undefined || snapshot.taken || snapshot.devices.length === 0) {
        return await take();
      }
      const begun: Begun = { id: snapshot.id, devices: snapshot.devices, names: [] };
      let isTaken = false;
      try {
        await this.#before(hooks, begun);
        const answer = await take();
        isTaken = true;
        return answer;
      } finally {
        await this.#after(hooks, begun, isTaken ? "taken" : "failed");
      }
    });
  }

  async #hooks(): Promise<Hook[]> {
    const { directory, timeoutMs } = this.#options;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const why = `${directory} was not read within ${timeoutMs} ms`;
      timer = setTimeout(() => reject(hookFailed(why, "ETIMEDOUT")), timeoutMs);
    });
    try {
      return await Promise.race([hooksIn(directory), late]);
    } catch (error) {
      if (error instanceof ControlError) throw error;
      const { code = "EIO", message } = error as NodeJS.ErrnoException;
      throw hookFailed(`${directory} cannot be read: ${message}`, code);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @throws ControlError HOOK_FAILED */
  async #before(hooks: readonly Hook[], begun: Begun): Promise<void> {
    const untilMs = performance.now() + this.#options.timeoutMs;
    const call: HookCall = { phase: "pre", ...begun, result: "none" };
    for (const hook of hooks) {
      if (hook.distrust === undefined) {
        begun.names.push(hook.name);
        this.#writeBegun(begun);
      }
      const why = await this.#run(hook, call, untilMs);
      if (why !== undefined) throw hookFailed(`${hook.path} before the take: ${why}`);
    }
  }

  /**
   * A failing hook neither keeps the others from running nor undoes the take. Nor does one that uses up the time:
   * each hook has its own share, so that the others release what they have quiesced.
   */
  async #after(hooks: readonly Hook[], begun: Begun, result: "taken" | "failed"): Promise<void> {
    const { timeoutMs } = this.#options;
    const untilMs = performance.now() + timeoutMs;
    const call: HookCall = { phase: "post", ...begun, result };
    const wanted = hooks.filter(({ name }) => begun.names.includes(name)).reverse();
    const shareMs = timeoutMs / wanted.length;
    for (const hook of wanted) {
      await this.#run(hook, call, Math.max(untilMs, performance.now() + shareMs));
    }
    this.#forgetBegun();
  }

  /** Returns why it failed. */
  async #run(hook: Hook, call: HookCall, untilMs: number): Promise<string | undefined> {
    const { logger, report } = this.#options;
    const { why, durationMs, output } = await runHook(hook, call, untilMs - performance.now());
    const { phase, id } = call;
    const its = { id, phase, hook: hook.name, duration_ms: durationMs };
    const details = { snapshot: id, hook: hook.path, phase, durationMs, output };
    if (why === undefined) {
      logger.info(details, "a hook ran");
      report({ event: "hook_ran", ...its });
      return undefined;
    }
    const line = output.split("\n").at(-1) ?? "";
    const text = line === "" ? why : `${why}: ${line}`;
    logger.error(details, `a hook failed: ${why}`);
    report({ event: "hook_failed", ...its, why: text });
    return text;
  }

  #readBegun(): Begun | undefined {
    try {
      const found = JSON.parse(readFileSync(this.#options.begunFile, "utf8")) as Begun;
      const { id, devices, names } = found;
      const isWhole = typeof id === "string" && Array.isArray(devices) && Array.isArray(names);
      return isWhole ? { id, devices: devices.map(String), names: names.map(String) } : undefined;
    } catch {
      return undefined;
    }
  }

  /** @throws ControlError HOOK_FAILED: without the list, hooks that were begun might never be finished */
  #writeBegun(begun: Begun): void {
    const { begunFile } = this.#options;
    try {
      mkdirSync(dirname(begunFile), { recursive: true, mode: 0o700 });
      replaceFile(begunFile, JSON.stringify(begun));
    } catch (error) {
      throw hookFailed(`${begunFile} cannot be written: ${(error as Error).message}`);
    }
  }

  #forgetBegun(): void {
    try {
      rmSync(this.#options.begunFile, { force: true });
    } catch (error) {
      this.#options.logger.warn({ err: error }, "the next daemon runs the hooks again");
    }
  }
}

function hookFailed(what: string, errnoName?: string): ControlError {
  return new ControlError("HOOK_FAILED", what, errnoName === undefined ? {} : { errnoName });
}

/** Concerns only the caller. */
const ASKED_WRONGLY: ReadonlySet<string> = new Set<ErrorName>([
  "SNAPSHOT_NOT_FOUND",
  "SNAPSHOT_ALREADY_TAKEN",
  "SNAPSHOT_EMPTY",
  "SHUTTING_DOWN",
]);

/** The driver with hooks around each take, and events of failed ones. */
export function withHooks(
  driver: DriverControl,
  hooks: Pick<TakeHooks, "around">,
  report: (event: NewDaemonEvent) => void,
): DriverControl {
  const snapshotTake: DriverControl["snapshotTake"] = async (id, options) => {
    try {
      return await hooks.around(driver, id, () => driver.snapshotTake(id, options));
    } catch (error) {
      const { code = "INTERNAL", message } = error as { code?: string; message: string };
      if (!ASKED_WRONGLY.has(code)) report({ event: "take_failed", id, code, why: message });
      throw error;
    }
  };
  return overlay(driver, { snapshotTake });
}
