/**
 * Freezing file systems: FIFREEZE brings a file system to a consistent state on its device and holds
 * new changes back until FITHAW.
 */
import { closeSync, constants, openSync } from "node:fs";
import { errnoName, ioctlAsync } from "@blksnap/uring";
import { ControlError } from "../control/control-error.js";
import { type Mount, reachableMountPoint, readMounts } from "./mounts.js";

const FIFREEZE = 0xc0045877;
const FITHAW = 0xc0045878;
const EBUSY = 16;
const EOPNOTSUPP = 95;

/** A file system that is frozen, or on its way. */
interface Frozen {
  readonly mount: Mount;
  readonly fd: number;
  /** Ends when FIFREEZE has ended, with 0 or a negative errno. */
  readonly freezing: Promise<number>;
  /** Somebody else had frozen it already: it is theirs to thaw. */
  foreign: boolean;
}

/** The file systems of one take, frozen together and always thawed together. */
export class FreezeGroup {
  readonly #frozen: Frozen[] = [];

  /** Mount points that are frozen, for messages. */
  get mountPoints(): string[] {
    return this.#frozen.map(({ mount }) => mount.mountPoint);
  }

  /**
   * Freezes the file systems mounted from these devices. When it throws, thaw() must still be
   * called: some of them may be frozen.
   * @param devices "major:minor" of block devices
   * @param timeoutMs for all of them together
   * @throws ControlError FREEZE_TIMEOUT, FREEZE_FAILED
   */
  async freeze(devices: ReadonlySet<string>, timeoutMs: number): Promise<void> {
    const seen = new Set<string>();
    const deadline = Date.now() + timeoutMs;
    for (const mount of readMounts()) {
      const device = `${mount.major}:${mount.minor}`;
      if (!devices.has(device) || seen.has(device)) continue;
      seen.add(device);
      await this.#freezeOne(mount, Math.max(1, deadline - Date.now()), timeoutMs);
    }
  }

  /** Thaws everything, also what becomes frozen only after its time limit. Never throws. */
  async thaw(): Promise<void> {
    const thawing = this.#frozen.splice(0).reverse();
    for (const frozen of thawing) await thawOne(frozen);
  }

  async #freezeOne(mount: Mount, leftMs: number, timeoutMs: number): Promise<void> {
    const fd = openMountPoint(mount);
    const freezing = ioctlAsync(fd, FIFREEZE);
    const frozen: Frozen = { mount, fd, freezing, foreign: false };
    this.#frozen.push(frozen);
    const status = await within(freezing, leftMs);
    if (status === undefined) {
      throw new ControlError(
        "FREEZE_TIMEOUT",
        `freezing ${mount.mountPoint} took longer than ${timeoutMs} ms`,
      );
    }
    if (status === 0) return;
    // No such operation: the file system has nothing to bring in order. EBUSY: already frozen.
    frozen.foreign = true;
    if (status === -EOPNOTSUPP || status === -EBUSY) return;
    throw new ControlError(
      "FREEZE_FAILED",
      `cannot freeze ${mount.mountPoint}: ${errnoName(status)}`,
      { errnoName: errnoName(status) },
    );
  }
}

function openMountPoint(mount: Mount): number {
  try {
    return openSync(reachableMountPoint(mount), constants.O_RDONLY | constants.O_DIRECTORY);
  } catch {
    try {
      return openSync(reachableMountPoint(mount), constants.O_RDONLY);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      throw new ControlError("FREEZE_FAILED", `cannot open ${mount.mountPoint}: ${code}`, {
        cause: error,
      });
    }
  }
}

async function within(work: Promise<number>, timeoutMs: number): Promise<number | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  return await Promise.race([work, timeout]).finally(() => clearTimeout(timer));
}

async function thawOne(frozen: Frozen): Promise<void> {
  const end = async (): Promise<void> => {
    const status = await frozen.freezing;
    if (status === 0 && !frozen.foreign) await ioctlAsync(frozen.fd, FITHAW);
    closeSync(frozen.fd);
  };
  // A freeze that is still under way is thawed when it ends; nobody waits for that.
  const ended = await within(
    frozen.freezing.then(() => 1),
    1,
  );
  if (ended === undefined) void end();
  else await end();
}
