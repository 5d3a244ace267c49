/** Ends the daemon: by the control API, by a signal, by its supervisor. */
import { setTimeout as sleep } from "node:timers/promises";
import type { DaemonControl, DaemonStopResponse, DaemonUpgradeResponse } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import { DAEMON_VERSION, type DeviceInUse, describeInUse } from "@blksnap/driver";
import type { Logger } from "pino";
import { OWN_SURROUNDINGS, restartingService } from "./restarter.js";
import type { SupervisorLink } from "./supervisor-link.js";

/** detach: nothing is left. keep: devices wait for the next daemon. handOver: a successor starts now. */
export type Ending = "detach" | "keep" | "handOver";

/** The used part of the driver. */
export interface Devices {
  devicesInUse(): Promise<readonly DeviceInUse[]>;
  /**
   * Detaches devices that can go while their users continue: all, or none. Returns, in words, what stays.
   * @param eachAlone detaches each that can be, whatever stays
   */
  leadBack(eachAlone?: boolean): Promise<readonly string[]>;
  status(): Promise<{
    readonly trackers: readonly { readonly front: string; readonly image: string | null }[];
  }>;
}

const TRY_AGAIN_INTERVAL_MS = 500;
const UNDER_WAY: readonly string[] = ["nodes of live attaches are being given their tables back"];

export interface DaemonOperationsOptions {
  readonly devices: Devices;
  readonly logger: Logger;
  /** Leave devices to the next daemon when a signal ends this one. */
  readonly keep: boolean;
  readonly link: SupervisorLink | undefined;
  /** Whether the system shuts down: then a refused end is retried until nothing is in use. */
  readonly isGoingDown?: () => Promise<boolean>;
  /**
   * Called once during shutdown, before any device is examined: the process has to outlive all others until nothing
   * is in use, and to find that out may take long.
   */
  readonly onStay?: () => void;
}

export class DaemonOperations implements DaemonControl {
  /** Resolves with the way to end, once it is decided. */
  readonly ending: Promise<Ending>;
  readonly #options: DaemonOperationsOptions;
  #decide: (ending: Ending) => void = () => undefined;
  #upgrading = false;
  #isTriedAgain = false;
  #isStaying = false;
  #again: NodeJS.Timeout | undefined;
  #leading: Promise<readonly string[]> | undefined;

  constructor(options: DaemonOperationsOptions) {
    this.#options = options;
    this.ending = new Promise((resolve) => {
      this.#decide = resolve;
    });
  }

  async upgrade(): Promise<DaemonUpgradeResponse> {
    if (this.#upgrading) throw new ControlError("UPGRADE_FAILED", "an upgrade is under way");
    this.#upgrading = true;
    try {
      const next = await this.#next();
      this.#options.logger.info(next, "handing over to a successor");
      this.#end("handOver");
      return { pid: process.pid, version: DAEMON_VERSION, ...next };
    } finally {
      this.#upgrading = false;
    }
  }

  async stop(keep: boolean): Promise<DaemonStopResponse> {
    const { devices } = this.#options;
    const { trackers } = await devices.status();
    if (!keep) {
      const inUse = await devices.devicesInUse();
      if (inUse.length > 0) {
        throw new ControlError("DAEMON_IN_USE", `in use: ${describeInUse(inUse)}`);
      }
      const stays = await devices.leadBack();
      if (stays.length > 0) throw new ControlError("DAEMON_IN_USE", `in use: ${stays.join("; ")}`);
    }
    const kept = keep ? trackers.flatMap(({ front, image }) => [front, image ?? []].flat()) : [];
    this.#end(keep ? "keep" : "detach");
    return { pid: process.pid, kept };
  }

  /** Refused while a device is in use, unless it may be left waiting: its users would lose it. */
  onSignal(signal: NodeJS.Signals): void {
    this.#judge(signal).catch((error: unknown) => {
      const text = `${signal} is ignored: cannot determine whether a device is in use`;
      this.#options.logger.error({ err: error }, text);
    });
  }

  async #judge(signal: NodeJS.Signals): Promise<void> {
    const { devices, logger, keep } = this.#options;
    if (keep) {
      this.#end("keep");
      return;
    }
    if (await this.#isGoingDown()) {
      await this.#judgeGoingDown(signal);
      return;
    }
    this.#isTriedAgain = false;
    const inUse = await devices.devicesInUse();
    const stays = inUse.length > 0 ? [] : await devices.leadBack();
    if (inUse.length === 0 && stays.length === 0) this.#end("detach");
    else logger.error({ inUse }, refusal(signal, inUse, stays));
  }

  async #isGoingDown(): Promise<boolean> {
    try {
      return (await this.#options.isGoingDown?.()) === true;
    } catch {
      return false;
    }
  }

  /**
   * No other request to end follows during shutdown, and file systems may be unmounted after us. If the daemon is
   * killed before, users of live-attached devices hang. So it retries until all are gone, whatever fails or hangs.
   */
  async #judgeGoingDown(signal: NodeJS.Signals): Promise<void> {
    const { devices, logger } = this.#options;
    let hasEnded = false;
    if (!this.#isStaying) {
      this.#isStaying = true;
      this.#options.onStay?.();
    }
    try {
      const leading = this.#leadEachBack();
      const inUse = await devices.devicesInUse();
      const stays = await Promise.race([leading, sleep(TRY_AGAIN_INTERVAL_MS, UNDER_WAY)]);
      hasEnded = inUse.length === 0 && stays.length === 0;
      if (hasEnded) this.#end("detach");
      else if (!this.#isTriedAgain) {
        // Usual: file systems are unmounted after this signal.
        logger.info({ inUse }, `${signal}: ends when nothing is in use: ${usesOf(inUse, stays)}`);
      }
      this.#isTriedAgain = true;
    } finally {
      clearTimeout(this.#again);
      if (!hasEnded) this.#again = setTimeout(() => this.onSignal(signal), TRY_AGAIN_INTERVAL_MS);
    }
  }

  /** One at a time, because it may hang. Returns, in words, what stays. */
  #leadEachBack(): Promise<readonly string[]> {
    this.#leading ??= this.#options.devices
      .leadBack(true)
      .catch((error: Error) => {
        this.#options.logger.error(
          { err: error },
          "nodes of live attaches did not get their tables back",
        );
        return [error.message];
      })
      .finally(() => {
        this.#leading = undefined;
      });
    return this.#leading;
  }

  /** Leaves the devices to the next daemon without asking; during shutdown there will be none. */
  leave(): void {
    if (!this.#isTriedAgain) this.#end("handOver");
  }

  async #next(): Promise<Omit<DaemonUpgradeResponse, "pid" | "version">> {
    const { link } = this.#options;
    if (link?.connected) {
      const { pid, version } = await link.prepareSuccessor();
      return { started_by: "supervisor", next_pid: pid, next_version: version };
    }
    await restartingService(OWN_SURROUNDINGS);
    return { started_by: "systemd", next_pid: null, next_version: null };
  }

  /** After the response was sent. */
  #end(ending: Ending): void {
    setImmediate(() => this.#decide(ending));
  }
}

function usesOf(inUse: readonly DeviceInUse[], stays: readonly string[]): string {
  return [describeInUse(inUse), ...stays].filter((text) => text !== "").join("; ");
}

function refusal(
  signal: NodeJS.Signals,
  inUse: readonly DeviceInUse[],
  stays: readonly string[],
): string {
  const hint = "Unmount or close them first; blksnapctl daemon stop --keep leaves them waiting";
  return `${signal} refused: in use: ${usesOf(inUse, stays)}. ${hint}`;
}
