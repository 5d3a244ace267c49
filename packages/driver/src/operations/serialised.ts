/**
 * Operations of concurrent clients: changes of one snapshot or one device run one after another, and fail with the
 * API's error codes.
 */

import { ControlError } from "@blksnap/api";
import { BlksnapError } from "@blksnap/errors";
import { deviceLock, snapshotLock } from "../driver-end.js";
import type { Registry } from "../registry.js";
import { named } from "../system/errors.js";
import { OPERATION_TURN_TIMEOUT_MS } from "../time-limits.js";
import { OperationLocks } from "./operation-locks.js";

/** How often the device behind a path may change while an operation waits for it. */
const PATH_ATTEMPTS_MAX = 3;

export class Operations {
  readonly locks: OperationLocks = new OperationLocks({
    busy: (what, holder, name) => {
      const forS = Math.round((performance.now() - holder.sinceMs) / 1000);
      const text = `${what} waited for ${holder.what}, which has run for ${forS} s`;
      const code = name.startsWith("snapshot ") ? "SNAPSHOT_BUSY" : "DEVICE_BUSY";
      const hint = "Try again when that has ended; see dmesg and the daemon's log if it does not";
      return new ControlError(code, text, { hint });
    },
    aborted: (what) => new ControlError("ABORTED", `${what}: it was cancelled while it waited`),
    closed: (what) => new ControlError("SHUTTING_DOWN", `${what}: the daemon is stopping`),
  });
  readonly #registry: Pick<Registry, "identity">;

  constructor(registry: Pick<Registry, "identity">) {
    this.#registry = registry;
  }

  onSnapshot<Value>(verb: string, id: string, operation: () => Promise<Value>): Promise<Value> {
    const options = { what: `${verb} ${id}`, waitMs: OPERATION_TURN_TIMEOUT_MS };
    return this.locks.run([snapshotLock(id)], options, () =>
      describingTimeout(options.what, operation()),
    );
  }

  /** @param others names to lock besides those of the devices */
  async onDevices<Value>(
    verb: string,
    paths: readonly string[],
    operation: () => Promise<Value>,
    { others = [], signal }: { others?: readonly string[]; signal?: AbortSignal | undefined } = {},
  ): Promise<Value> {
    const options = {
      what: `${verb} ${paths.join(", ")}`,
      waitMs: OPERATION_TURN_TIMEOUT_MS,
      signal,
    };
    for (let attempt = 1; attempt <= PATH_ATTEMPTS_MAX; attempt++) {
      const names = await this.#deviceLocks(paths);
      const outcome = await this.locks.run([...others, ...names], options, async () => {
        // While it waited, the path may now lead to another device.
        const now = await this.#deviceLocks(paths);
        const isSame = now.every((name) => names.includes(name));
        return isSame ? { value: await describingTimeout(options.what, operation()) } : undefined;
      });
      if (outcome !== undefined) return outcome.value;
    }
    throw new ControlError("DEVICE_BUSY", `${options.what}: its device keeps changing`);
  }

  async #deviceLocks(paths: readonly string[]): Promise<string[]> {
    const names: string[] = [];
    for (const path of paths) {
      names.push(deviceLock({ identity: await this.#registry.identity(path) }));
    }
    return names;
  }
}

/** Adds the operation's description to a time-out. */
async function describingTimeout<Value>(what: string, work: Promise<Value>): Promise<Value> {
  try {
    return await named(work);
  } catch (error) {
    if (!(error instanceof BlksnapError) || error.code !== "NO_ANSWER") throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    throw new ControlError("NO_ANSWER", `${what}: ${error.message}`, { ...hint, cause: error });
  }
}
