/**
 * Attaches the devices of the configuration when the daemon has started.
 *
 * Many failures at boot are temporary: a disk is not found yet, or udev, fsck or a scan of volumes holds it. So each
 * device is retried until its time is over; then the boot continues without it.
 */
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { AttachRequestOptions, AttachResponse, ErrorName, StatusResponse } from "@blksnap/api";
import type { Logger } from "pino";
import type { Config } from "./config.js";
import { bootClockMs, type Served, type WaitedFor } from "./served.js";

const RETRY_INTERVAL_MS = 500;
/** A device over which one daemon after another dies is given up: otherwise users of other devices wait each time. */
const DAEMONS_MAX = 3;

/** Errors of devices that may still appear while a machine starts: retried as long as the configuration says. */
const COMING: ReadonlySet<string> = new Set<ErrorName>([
  "DEVICE_NOT_FOUND",
  "DEVICE_FAILED",
  // udev may still give the node to the daemon's user.
  "DEVICE_NOT_PERMITTED",
  "NO_ANSWER",
  "OUT_OF_MEMORY",
  "PERSISTENT_STATE_UNUSABLE",
]);
/**
 * Errors that pass soon or never: a scan holds the device, or its size comes after its node; but also one that is
 * mounted already, or read-only. The boot waits for it, so the limit is short.
 */
const PASSING: ReadonlySet<string> = new Set<ErrorName>([
  "DEVICE_BUSY",
  "DEVICE_TOO_SMALL",
  "DEVICE_READ_ONLY",
  "UBLK_FAILED",
]);
const PASSING_WAIT_MS = 10_000;
/** Errors of a detach whose device is still to be attached. */
const NOTHING_TO_DETACH: ReadonlySet<string> = new Set<ErrorName>([
  "NOT_ATTACHED",
  "DEVICE_NOT_FOUND",
]);
/** For devices that no boot waits for. */
const HELD_RETRY_INTERVAL_MS = 10_000;

export type Missing = StatusResponse["daemon"]["configuration"]["missing"][number];

export interface AttachSurroundings {
  readonly attach: (device: string, options: AttachRequestOptions) => Promise<AttachResponse>;
  readonly logger: Logger;
  /** Aborted when the daemon ends: all waits end. */
  readonly signal: AbortSignal;
  /** Called for each device that is attached or given up. */
  readonly onSettled?: () => void;
  /** Whether no device can be attached now: one that is busy meanwhile is retried when that ends. */
  readonly isHeld?: () => boolean;
  readonly nowMs?: () => number;
  readonly untilRetry?: (signal: AbortSignal, afterMs: number) => Promise<unknown>;
}

function untilNext(signal: AbortSignal, afterMs: number): Promise<unknown> {
  return delay(afterMs, undefined, { signal }).catch(() => undefined);
}

const DEV = "/dev/";

/** Whether two paths lead to one device. A stat below /dev never hangs; an image file is compared by path. */
function isSamePath(one: string, other: string): boolean {
  if (one === other) return true;
  if (!one.startsWith(DEV) || !other.startsWith(DEV)) return false;
  try {
    return realpathSync(one) === realpathSync(other);
  } catch {
    return false;
  }
}

/**
 * What a daemon has to attach. A successor continues to wait for the devices that its predecessor waited for, for the
 * time that is left: a device that was detached since the start stays detached.
 * @param earlier what the predecessor has left
 * @param isStandby it is a successor, even if an earlier version has left nothing
 */
export function devicesToAttach(
  { devices }: Config,
  earlier: Served | undefined,
  isStandby: boolean,
  nowMs: number = bootClockMs(),
): WaitedFor[] {
  if (earlier?.waited !== undefined) {
    const wanted = new Set(devices.map(({ device }) => device));
    return earlier.waited
      .filter(({ configured }) => wanted.has(configured.device))
      .map((one) => ({ ...one, earlierDaemons: one.earlierDaemons + 1 }));
  }
  if (isStandby) return [];
  return devices.map((configured) => {
    const untilMs = nowMs + configured.waitSeconds * 1000;
    return { configured, untilMs, earlierDaemons: 0 };
  });
}

export class ConfiguredDevices {
  readonly #surroundings: AttachSurroundings;
  readonly #waited: Set<WaitedFor>;
  readonly #missing = new Map<string, Missing>();
  /** Devices that users are detaching, each until that has ended. */
  readonly #leaving = new Map<WaitedFor, Promise<void>>();

  constructor(devices: readonly WaitedFor[], surroundings: AttachSurroundings) {
    this.#waited = new Set(devices);
    this.#surroundings = surroundings;
  }

  /** Devices that are neither attached nor given up. */
  get waited(): WaitedFor[] {
    return [...this.#waited];
  }

  /** Devices that are not attached, and why. */
  get missing(): Missing[] {
    return [...this.#missing.values()];
  }

  /** Resolves when each is attached, has failed or has run out of time. Failures are logged, not thrown. */
  async attach(): Promise<void> {
    const boot = this.waited.filter(({ isHeld }) => isHeld !== true);
    await Promise.all(boot.map((one) => this.#attachOne(one)));
  }

  /**
   * Attaches devices that were given up while none could be attached, for as long as it takes, even if one is mounted
   * without its front by then. Resolves when each is attached, has failed for good, or was detached by users.
   */
  async attachHeld(): Promise<void> {
    const held = this.waited.filter(({ isHeld }) => isHeld === true);
    await Promise.all(held.map((one) => this.#attachOne(one)));
  }

  /**
   * Users detach it: it is not tried meanwhile, nor attached later unless the detach fails. Undefined: there was
   * nothing to detach, and its attach is given up.
   * @throws the error of `detach`
   */
  async detach<Value>(path: string, detach: () => Promise<Value>): Promise<Value | undefined> {
    const wanted = resolve(path);
    const its = this.waited.filter(({ configured }) => isSamePath(configured.device, wanted));
    const leaving = this.#awaitDetach(its, detach());
    for (const one of its) this.#leaves(one, leaving);
    return await leaving;
  }

  async #awaitDetach<Value>(
    its: readonly WaitedFor[],
    detaching: Promise<Value>,
  ): Promise<Value | undefined> {
    let answer: Value | undefined;
    try {
      answer = await detaching;
    } catch (error) {
      const { code = "" } = error as { code?: string };
      if (its.length === 0 || !NOTHING_TO_DETACH.has(code)) throw error;
    }
    for (const { configured } of its) {
      this.#missing.delete(configured.device);
      // Its entry may be another one by now.
      for (const one of this.waited) if (one.configured === configured) this.#settle(one);
    }
    return answer;
  }

  #leaves(one: WaitedFor, leaving: Promise<unknown>): void {
    const ended = Promise.allSettled([this.#leaving.get(one), leaving]).then(() => {
      if (this.#leaving.get(one) === ended) this.#leaving.delete(one);
    });
    this.#leaving.set(one, ended);
  }

  async #attachOne(one: WaitedFor): Promise<void> {
    const { device, persistent, from } = one.configured;
    const { attach, logger, signal, nowMs = bootClockMs } = this.#surroundings;
    const { untilRetry = untilNext } = this.#surroundings;
    if (one.earlierDaemons > DAEMONS_MAX) {
      const why = `${one.earlierDaemons} daemons have ended while they waited for it`;
      this.#giveUp(one, null, why, undefined);
      return;
    }
    const beganMs = nowMs();
    let untilMs = one.untilMs;
    while (!signal.aborted && this.#waited.has(one)) {
      const leaving = this.#leaving.get(one);
      if (leaving !== undefined) {
        await leaving;
        continue;
      }
      try {
        const { front } = await attach(device, { persistent });
        logger.info({ device, front, from }, "a configured device is attached");
        this.#missing.delete(device);
        this.#settle(one);
        return;
      } catch (error) {
        const { code = null, message } = error as { code?: string; message: string };
        // It fails because this daemon ends, and the next one retries; or users no longer want it.
        if (signal.aborted || !this.#waited.has(one)) return;
        const isPassing = PASSING.has(code ?? "");
        if (isPassing) untilMs = Math.min(untilMs, nowMs() + PASSING_WAIT_MS);
        else untilMs = one.untilMs;
        const isWaitedFor = isPassing || COMING.has(code ?? "");
        const isOver = one.isHeld !== true && nowMs() >= untilMs;
        if (!isWaitedFor || isOver) {
          this.#giveUp(one, code, message, isWaitedFor ? nowMs() - beganMs : undefined);
          return;
        }
        this.#noteWait(one, code, message);
      }
      const isLong = one.isHeld === true && nowMs() - beganMs >= PASSING_WAIT_MS;
      await untilRetry(signal, isLong ? HELD_RETRY_INTERVAL_MS : RETRY_INTERVAL_MS);
    }
  }

  #noteWait({ configured: { device, from } }: WaitedFor, code: string | null, why: string): void {
    const isKnown = this.#missing.get(device)?.code === code;
    this.#missing.set(device, { device, from, waited_for: true, code, why });
    if (isKnown) return;
    const text = `waiting for a configured device: ${why}`;
    this.#surroundings.logger.info({ device, from, code }, text);
  }

  #giveUp(one: WaitedFor, code: string | null, why: string, waitedMs: number | undefined): void {
    const { device, from } = one.configured;
    const isHeld = code === "DEVICE_BUSY" && this.#surroundings.isHeld?.() === true;
    if (isHeld) this.#waited.add({ ...one, isHeld });
    const waited = waitedMs === undefined ? "" : ` after ${Math.round(waitedMs / 1000)} s`;
    this.#missing.set(device, { device, from, waited_for: false, code, why });
    const text = `a configured device is not attached${waited}: ${why}`;
    this.#surroundings.logger.error({ device, from, code }, text);
    this.#settle(one);
  }

  #settle(one: WaitedFor): void {
    this.#waited.delete(one);
    this.#surroundings.onSettled?.();
  }
}
