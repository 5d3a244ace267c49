/** Events of a snapshot in the form of the daemon's log. */
import type { EventKind, EventOf, SnapshotEvent } from "@blksnap/api";
import type { NewDaemonEvent } from "./differences.js";

/** By kind; null for those that concern only their reader. */
const TRANSLATIONS: {
  readonly [Kind in EventKind]: ((id: string, event: EventOf<Kind>) => NewDaemonEvent) | null;
} = {
  corrupted: (id, { device, errno }) => ({ event: "corrupted", id, device, errno }),
  no_space: (id, { allocated_bytes, limit_bytes, used_bytes }) => ({
    event: "no_space",
    ...{ id, allocated_bytes, limit_bytes, used_bytes },
  }),
  low_free_space: (id, { wanted_bytes, free_bytes, errno }) => ({
    event: "low_free_space",
    ...{ id, wanted_bytes, free_bytes, errno },
  }),
  store_hung: (id, { device, store }) => ({ event: "store_hung", id, device, store }),
  store_answered: (id, { device, store }) => ({ event: "store_answered", id, device, store }),
  missed: null,
};

export function daemonEventOf(id: string, event: SnapshotEvent): NewDaemonEvent | undefined {
  const translate = TRANSLATIONS[event.event] as
    | ((id: string, event: SnapshotEvent) => NewDaemonEvent)
    | null;
  return translate?.(id, event);
}
