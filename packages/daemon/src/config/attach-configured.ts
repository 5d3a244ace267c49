/** The devices that the configuration names, attached when the daemon has started. */
import { setTimeout as delay } from "node:timers/promises";
import type { AttachRequestOptions, AttachResponse } from "@blksnap/api";
import type { Logger } from "pino";
import type { ConfiguredDevice } from "./config.js";

const LOOK_AGAIN_INTERVAL_MS = 500;

export interface AttachSurroundings {
  readonly attach: (device: string, options: AttachRequestOptions) => Promise<AttachResponse>;
  readonly logger: Logger;
  /** Aborted when the daemon is to end: nothing is waited for any more. */
  readonly signal: AbortSignal;
  readonly nowMs?: () => number;
  readonly untilLookAgain?: (signal: AbortSignal) => Promise<unknown>;
}

function untilNext(signal: AbortSignal): Promise<unknown> {
  return delay(LOOK_AGAIN_INTERVAL_MS, undefined, { signal }).catch(() => undefined);
}

/** Ends when each is attached, or was waited for in vain, or failed; that is logged, and no error. */
export async function attachConfigured(
  devices: readonly ConfiguredDevice[],
  surroundings: AttachSurroundings,
): Promise<void> {
  await Promise.all(devices.map((device) => attachOne(device, surroundings)));
}

async function attachOne(
  { device, persistent, waitSeconds, from }: ConfiguredDevice,
  surroundings: AttachSurroundings,
): Promise<void> {
  const { attach, logger, signal, nowMs = Date.now, untilLookAgain = untilNext } = surroundings;
  const untilMs = nowMs() + waitSeconds * 1000;
  while (!signal.aborted) {
    try {
      const { front } = await attach(device, { persistent });
      logger.info({ device, front, from }, "a device of the configuration is attached");
      return;
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code !== "DEVICE_NOT_FOUND" || nowMs() >= untilMs) {
        const waited = code === "DEVICE_NOT_FOUND" ? ` after ${waitSeconds} s` : "";
        const text = `a device of the configuration is not attached${waited}: ${message}`;
        logger.error({ device, from, code }, text);
        return;
      }
    }
    await untilLookAgain(signal);
  }
}
