/** What the description of the API says of each of its requests: the stable names that generated clients use. */

/** In the order in which they are shown. */
export const TAGS = {
  devices: "Tracked devices: attach and detach",
  changes: "Changed-block tracking of a device",
  snapshots: "Snapshots from create to destroy",
  events: "What happens to a snapshot while it lives, and to the daemon",
  nbd: "Where clients are received by TCP",
  daemon: "The daemon itself",
} as const;

interface OperationEntry {
  readonly tag: keyof typeof TAGS;
  /** One line, without a full stop. */
  readonly summary: string;
}

export const OPERATIONS = {
  attach: { tag: "devices", summary: "Attach a device: its front appears" },
  getTracker: { tag: "devices", summary: "State of one tracked device" },
  detach: { tag: "devices", summary: "Detach a device: its front goes" },
  getSnapshotInfo: { tag: "devices", summary: "Image of a device and its error" },
  getCbtInfo: { tag: "changes", summary: "Generation and number of a device's change tracking" },
  readCbtMap: { tag: "changes", summary: "Bytes of the change map, one per block" },
  diff: { tag: "changes", summary: "What changed since a number" },
  markDirty: { tag: "changes", summary: "Mark ranges as changed" },
  markDirtyFile: { tag: "changes", summary: "Mark the blocks of a file as changed" },
  createSnapshot: { tag: "snapshots", summary: "Create a snapshot, not yet taken" },
  listSnapshots: { tag: "snapshots", summary: "All snapshots in short" },
  getSnapshot: { tag: "snapshots", summary: "State of one snapshot" },
  addToSnapshot: { tag: "snapshots", summary: "Add a device before the take" },
  takeSnapshot: { tag: "snapshots", summary: "Take it: all its devices at one instant" },
  destroySnapshot: { tag: "snapshots", summary: "Destroy it: its images go" },
  waitEvent: { tag: "events", summary: "Wait for an event and take it" },
  listEvents: { tag: "events", summary: "All events that are kept; takes none" },
  followEvents: { tag: "events", summary: "Events as they come; takes none, and can be resumed" },
  readDaemonEvents: {
    tag: "events",
    summary: "Events of the whole daemon, also as they come; can be resumed",
  },
  listNbdListeners: { tag: "nbd", summary: "TCP addresses at which NBD clients are received" },
  openNbdListener: { tag: "nbd", summary: "Receive NBD clients at a TCP address" },
  closeNbdListener: { tag: "nbd", summary: "Receive them there no more; their connections end" },
  getVersion: { tag: "daemon", summary: "Versions of the daemon and of what it runs on" },
  getStatus: { tag: "daemon", summary: "Everything there is" },
  getMetrics: { tag: "daemon", summary: "Counters as Prometheus text" },
  getDescription: { tag: "daemon", summary: "This description" },
  upgradeDaemon: { tag: "daemon", summary: "Leave the devices to a daemon of the program on disk" },
  stopDaemon: { tag: "daemon", summary: "End the daemon" },
} as const satisfies Readonly<Record<string, OperationEntry>>;

/** The stable name of a request. */
export type OperationId = keyof typeof OPERATIONS;
