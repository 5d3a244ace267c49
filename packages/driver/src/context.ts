/** What all parts of one driver share, from its start to its end. */
import { giveUpMs, type ReactorPool } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import type { UblkControl } from "@blksnap/ublk";
import { type PromiseRing, Serial } from "@blksnap/uring";
import type { BlockDeviceFacts, DriverPorts, Freezing } from "./ports.js";
import { claimState } from "./records/claim-state.js";
import { PersistentDirectory } from "./records/persistent-directory.js";
import type { StateDirectory } from "./records/state-directory.js";
import type { DriverSettings } from "./settings.js";

export interface DriverContext extends Omit<DriverSettings, "reactors"> {
  readonly ublk: UblkControl;
  readonly reactors: ReactorPool;
  /** On tmpfs: outlives the process. */
  readonly state: StateDirectory;
  /** On a medium: outlives the machine's power. */
  readonly persistent: PersistentDirectory;
  readonly storeSystem: StoreSystem;
  readonly blockDevices: BlockDeviceFacts;
  readonly freezing: Freezing;
  /** One take freezes at a time: a file system can lie on devices of two snapshots. */
  readonly freezes: Serial;
}

interface Parts extends Pick<DriverContext, "ublk" | "reactors"> {
  readonly ring: PromiseRing;
}

/** Takes the state directory over. @throws ControlError ALREADY_RUNNING */
export async function openContext(
  settings: DriverSettings,
  ports: DriverPorts,
  { ring, ublk, reactors }: Parts,
): Promise<DriverContext> {
  const { stateDirectory, takeOverTimeoutMs, persistentDirectory, ioTimeoutMs } = settings;
  return {
    ...settings,
    ublk,
    reactors,
    state: await claimState(stateDirectory, takeOverTimeoutMs),
    persistent: new PersistentDirectory(persistentDirectory, giveUpMs(ioTimeoutMs)),
    storeSystem: ports.storeSystem(ring),
    blockDevices: ports.blockDevices,
    freezing: ports.freezing,
    freezes: new Serial(),
  };
}
