/** What all parts of a driver share, from its start to its end. */
import { ControlError } from "@blksnap/api";
import { giveUpMs, type ReactorPool } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import type { UblkControl } from "@blksnap/ublk";
import { type PromiseRing, Serial } from "@blksnap/uring";
import type { Frontend, FrontendKind } from "./frontend/frontend.js";
import { NbdFrontend } from "./frontend/nbd-frontend.js";
import { UblkFrontend } from "./frontend/ublk-frontend.js";
import type { NbdExports } from "./nbd-exports.js";
import type { BlockDeviceFacts, DriverPorts, Freezing } from "./ports.js";
import { claimState } from "./records/claim-state.js";
import { StateFile } from "./records/file-names.js";
import { PersistentDirectory } from "./records/persistent-directory.js";
import type { TrackerRecord } from "./records/records.js";
import type { FoundRecord, StateDirectory } from "./records/state-directory.js";
import type { DriverSettings } from "./settings.js";

export interface DriverContext extends Omit<DriverSettings, "reactors" | "frontend"> {
  readonly frontend: Frontend;
  readonly reactors: ReactorPool;
  /** On tmpfs: survives the process. */
  readonly state: StateDirectory;
  /** On a medium: survives a power cut. */
  readonly persistent: PersistentDirectory;
  readonly storeSystem: StoreSystem;
  readonly blockDevices: BlockDeviceFacts;
  readonly freezing: Freezing;
  /** Only one take freezes at a time: a file system can lie on devices of two snapshots. */
  readonly freezes: Serial;
}

interface Parts extends Pick<DriverContext, "reactors"> {
  readonly ring: PromiseRing;
  /** Undefined if fronts are exported over NBD only. */
  readonly ublk: UblkControl | undefined;
  readonly exports: NbdExports;
}

/** Takes the state directory over. @throws ControlError ALREADY_RUNNING */
export async function openContext(
  settings: DriverSettings,
  ports: DriverPorts,
  { ring, ublk, reactors, exports }: Parts,
): Promise<DriverContext> {
  const { stateDirectory, takeOverTimeoutMs, persistentDirectory, ioTimeoutMs } = settings;
  const state = await claimState(stateDirectory, takeOverTimeoutMs);
  assertFrontend(state, settings.frontend);
  return {
    ...settings,
    frontend:
      ublk === undefined
        ? new NbdFrontend((name) => exports.uriOf(name))
        : new UblkFrontend(ublk, state.owner, settings.logger),
    reactors,
    state,
    persistent: new PersistentDirectory(persistentDirectory, giveUpMs(ioTimeoutMs)),
    storeSystem: ports.storeSystem(ring),
    blockDevices: ports.blockDevices,
    freezing: ports.freezing,
    freezes: new Serial(),
  };
}

/** Otherwise users of recorded fronts would wait without end, or find nothing. @throws ControlError FRONTEND_DIFFERS */
function assertFrontend(state: StateDirectory, kind: FrontendKind): void {
  const records = state.readRecords(StateFile.trackerRecord.prefix);
  const isOther = (found: FoundRecord) =>
    found.problem === undefined &&
    ((found.value as TrackerRecord).front === null) !== (kind === "nbd");
  if (!records.some(isOther)) return;
  state.close();
  const other = kind === "nbd" ? "ublk" : "nbd";
  const what = `the fronts recorded in ${state.path} are those of --frontend ${other}`;
  throw new ControlError("FRONTEND_DIFFERS", what);
}
