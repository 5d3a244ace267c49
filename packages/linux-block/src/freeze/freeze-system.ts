/** Finds, opens and syncs the file systems of a machine, in all mount namespaces. */
import { deviceKey } from "../device-number.js";
import type { HelperCalls } from "../helper-calls.js";
import type { Elsewhere, LoopFile } from "../stack/block-stack.js";
import { MULTI_DEVICE_TYPES } from "../stack/block-stack.js";
import type { LoopTable } from "../stack/loop-table.js";
import { parseMountinfo } from "../stack/mountinfo.js";
import { type SystemView, USERS_VIEW } from "../stack/mounts.js";
import type { LoopBacking } from "../stack/probe.js";

/** Each call ends within about its time limit. */
export interface FreezeSystem
  extends SystemView,
    Pick<HelperCalls, "freezeProgram" | "reach" | "sync"> {
  /** Mounts outside the users' mount namespace; `isComplete`: the time was enough for all of them. */
  readElsewhere(timeoutMs: number): Promise<Elsewhere & { readonly isComplete: boolean }>;
}

/** The file systems of this machine. @param loops known facts about its loop devices */
export function usersSystem(loops: LoopTable, calls: HelperCalls): FreezeSystem {
  return {
    ...USERS_VIEW,
    freezeProgram: calls.freezeProgram,
    async readElsewhere(timeoutMs) {
      const [found, looped] = await Promise.all([
        calls.mounts(MULTI_DEVICE_TYPES, timeoutMs),
        loops.read(timeoutMs),
      ]);
      const shown = new Set(USERS_VIEW.readMounts().map(({ device }) => device));
      const mounts = parseMountinfo(found.mounts.map(({ line }) => line).join("\n"));
      return {
        mounts: mounts.filter(({ device }) => !shown.has(device)),
        loopFiles: new Map([...looped].map(([name, { backing }]) => [name, fileOf(backing)])),
        isComplete: found.isComplete,
      };
    },
    reach: (devices, timeoutMs) => calls.reach(devices, timeoutMs),
    sync: (paths, timeoutMs) => calls.sync(paths, timeoutMs),
  };
}

function fileOf({ device, blockDevice }: LoopBacking): LoopFile {
  return {
    fileSystem: deviceKey(device),
    device: blockDevice === undefined ? undefined : deviceKey(blockDevice),
  };
}
