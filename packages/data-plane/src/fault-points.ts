/**
 * Points between two steps of the driver at which a test can kill the process.
 *
 * Nothing here can end a process: a test preloads a module of its own (`node --import`) that puts a function under
 * FAULT_HOOK before the driver is loaded, and that function decides. Without one, as everywhere but in tests, a fault
 * point calls an empty function.
 */

export const FAULT_POINTS = [
  "attach.map-made",
  "attach.device-added",
  "attach.recorded",
  "attach.queue-started",
  "attach.front-live",
  "attach.linked",

  "detach.front-synced",
  "detach.front-left",
  "detach.front-stopped",
  "detach.link-removed",
  "detach.record-removed",
  "detach.map-removed",

  "create.recorded",
  "create.stores-opened",
  "create.created",
  "add.recorded",

  "take.begun",
  "take.map-made",
  "take.area-prepared",
  "take.areas-recorded",
  "take.frozen",
  "take.held",
  "take.one-switched",
  "take.switched",
  "take.thawed",
  "take.image-added",
  "take.image-recorded",
  "take.image-queue-started",
  "take.image-live",
  "take.image-linked",
  "take.taken",

  // On a reactor. A chunk's slot is recorded before its first copy is issued.
  "copy.slot-recorded",
  "copy.data-complete",
  // For a copy behind its write: before it is recorded, and when both writes are about to be issued.
  "copy.old-data-read",
  "copy.left-behind",
  "copy.bit-recorded",
  "copy.original-written",
  "image-write.begun",
  "image-write.complete",

  "slots.asked",
  "slots.allocated",
  "slots.granted",
  "slots.freed",
  "growth.begun",
  "growth.allocated",

  "destroy.withdrawn",
  "destroy.begun",
  "destroy.area-dropped",
  "destroy.image-stopped",
  "destroy.area-closed",
  "destroy.map-removed",
  "destroy.members-closed",
  "destroy.stores-closed",
  "destroy.record-removed",

  "suspend.images-forgotten",
  "suspend.images-stopped",
  "suspend.stores-sealed",
  "suspend.journals-complete",

  "recover.records-read",
  "recover.stores-opened",
  "recover.original-opened",
  "recover.begun",
  "recover.queue-started",
  "recover.front-live",
  "recover.fronts-live",
  "recover.rejoined",
  "recover.image-begun",
  "recover.image-queue-started",
  "recover.image-live",
  "recover.discarded",
  "recover.orphans-removed",
] as const;

/** Points of a front that grows with its original, which needs a kernel that can do that. */
export const GROWTH_FAULT_POINTS = [
  "grow.map-made",
  "grow.recorded",
  "grow.exchanged",
  "grow.map-replaced",
  "grow.front-grown",
] as const;

/** Points of a live attach, which needs a device mapper. */
export const LIVE_FAULT_POINTS = [
  "live.cloned",
  "live.prepared",
  "live.spliced",
  "live.return-prepared",
  "live.returned",
  "live.clone-removed",
  "live.follow-detached",
] as const;

export type FaultPoint = (typeof FAULT_POINTS)[number];
export type LiveFaultPoint = (typeof LIVE_FAULT_POINTS)[number];
export type GrowthFaultPoint = (typeof GROWTH_FAULT_POINTS)[number];

/** Where a test's module puts its function: `globalThis[FAULT_HOOK]`. */
export const FAULT_HOOK: symbol = Symbol.for("blksnap.fault-point");

type Hook = (point: FaultPoint | LiveFaultPoint | GrowthFaultPoint) => void;

const preloaded = (globalThis as unknown as Record<symbol, Hook | undefined>)[FAULT_HOOK];

export const hasFaultHook: boolean = preloaded !== undefined;

/** Marks a point: the step before this call is complete, the step after it has not begun. */
export const faultPoint: Hook = preloaded ?? (() => undefined);
