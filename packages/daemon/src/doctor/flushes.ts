/**
 * Whether fronts pass flushes on. A front keeps what it was attached with: one of an earlier version, or of a disk whose
 * cache was enabled later, may have no write cache although its original has one. The kernel then ends its users'
 * flushes by itself.
 */
import type { TrackerRecord } from "@blksnap/driver";
import { isStacked, queueAttribute } from "@blksnap/linux-block";
import { error, type Finding, ok } from "./finding.js";
import type { HostFiles } from "./host-files.js";

type Tracked = Pick<TrackerRecord, "device" | "identity" | "front">;

const CHECK = "flushes";
const CACHED = "write back";

export function checkFlushes(host: HostFiles, tracked: readonly Tracked[]): Finding {
  const sysfs = host.path("/sys");
  const without = tracked.filter(
    (one) => hasNoCache(host, one) && mayHaveCache(one.identity, sysfs),
  );
  if (without.length === 0)
    return ok(CHECK, "fronts pass flushes on where their originals need them");
  const names = without.map(({ device, front }) => `/dev/ublkb${front} of ${device}`).join(", ");
  const what = `flushes end at the front ${names}`;
  const why = "its original may have a write cache: a power cut can lose what users have synced";
  return error(CHECK, what, why, "Detach it, and attach it again");
}

function hasNoCache(host: HostFiles, { front }: Tracked): boolean {
  return host.text(`/sys/class/block/ublkb${front}/queue/write_cache`)?.trim() === "write through";
}

/** A file has the page cache; a volume may move to a disk with a cache. */
function mayHaveCache(identity: string, sysfs: string): boolean {
  const [kind, ...number] = identity.split(":");
  if (kind !== "block") return true;
  const key = number.join(":");
  return queueAttribute(key, "write_cache", sysfs) === CACHED || isStacked(key, sysfs);
}
