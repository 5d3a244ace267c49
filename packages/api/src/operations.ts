/** Descriptions of the API's requests, by the stable names that generated clients use. */

/** In display order. */
export const TAGS = {
  devices: "Tracked devices: attach and detach",
  changes: "Changed-block tracking of a device",
  snapshots: "Snapshots from create to destroy",
  events: "Events of snapshots and of the daemon",
  nbd: "TCP addresses for NBD clients",
  daemon: "The daemon itself",
} as const;

interface OperationEntry {
  readonly tag: keyof typeof TAGS;
  /** One line, without a full stop. */
  readonly summary: string;
}

export const OPERATIONS = {
  attach: { tag: "devices", summary: "Attach a device and create its front" },
  getTracker: { tag: "devices", summary: "State of one tracked device" },
  detach: { tag: "devices", summary: "Detach a device and remove its front" },
  getSnapshotInfo: { tag: "devices", summary: "Image of a device and its error" },
  getCbtInfo: { tag: "changes", summary: "Generation and number of a device's change tracking" },
  readCbtMap: { tag: "changes", summary: "Bytes of the change map, one per block" },
  diff: { tag: "changes", summary: "What changed since a number" },
  markDirty: { tag: "changes", summary: "Mark ranges as changed" },
  markDirtyFile: { tag: "changes", summary: "Mark the blocks of a file as changed" },
  createSnapshot: { tag: "snapshots", summary: "Create a snapshot, not yet taken" },
  listSnapshots: { tag: "snapshots", summary: "All snapshots, in brief" },
  getSnapshot: { tag: "snapshots", summary: "State of one snapshot" },
  addToSnapshot: { tag: "snapshots", summary: "Add a device before the take" },
  takeSnapshot: { tag: "snapshots", summary: "Take a snapshot of all its devices at one instant" },
  destroySnapshot: { tag: "snapshots", summary: "Destroy a snapshot and its images" },
  waitEvent: { tag: "events", summary: "Wait for an event and remove it" },
  listEvents: { tag: "events", summary: "All kept events; removes none" },
  followEvents: { tag: "events", summary: "Stream of events; removes none, and can be resumed" },
  readDaemonEvents: {
    tag: "events",
    summary: "Events of the whole daemon, or a stream of them; can be resumed",
  },
  listNbdListeners: { tag: "nbd", summary: "TCP addresses that accept NBD clients" },
  openNbdListener: { tag: "nbd", summary: "Accept NBD clients at a TCP address" },
  closeNbdListener: { tag: "nbd", summary: "Close a TCP address and end its connections" },
  getVersion: { tag: "daemon", summary: "Versions of the daemon, Node and the kernel" },
  getStatus: { tag: "daemon", summary: "State of everything" },
  getMetrics: { tag: "daemon", summary: "Counters as Prometheus text" },
  getDescription: { tag: "daemon", summary: "This description" },
  upgradeDaemon: {
    tag: "daemon",
    summary: "Hand the devices over to a daemon of the program on disk",
  },
  stopDaemon: { tag: "daemon", summary: "End the daemon" },
} as const satisfies Readonly<Record<string, OperationEntry>>;

/** The stable name of a request. */
export type OperationId = keyof typeof OPERATIONS;
