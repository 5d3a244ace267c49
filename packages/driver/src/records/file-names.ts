/**
 * The names of all files that the daemon keeps in its two directories: what each kind of file is called, and what its
 * name tells. Names of records are without the suffix.
 */
import type { AreaId } from "@blksnap/data-plane";
import { DRAFT_SUFFIX } from "@blksnap/journal";

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const NUMBER = "[0-9]+";

/** A kind of file, named by the ids of what it belongs to. */
export class FileKind<Ids extends readonly (string | number)[]> {
  /** All names of the kind begin with it. */
  readonly prefix: string;
  readonly #suffix: string;
  readonly #pattern: RegExp;

  /** @param ids a pattern for each of the ids */
  constructor(prefix: string, ids: readonly string[], suffix: string = "") {
    this.prefix = prefix;
    this.#suffix = suffix;
    const pattern = ids.map((id) => `(${id})`).join("-");
    this.#pattern = new RegExp(`^${prefix}${pattern}${suffix.replace(".", "\\.")}$`);
  }

  name(...ids: Ids): string {
    return this.prefix + ids.join("-") + this.#suffix;
  }

  /** The ids in a name; undefined if the name is not of this kind. */
  idsIn(name: string): string[] | undefined {
    return this.#pattern.exec(name)?.slice(1);
  }
}

/** Files in the state directory, on tmpfs. */
export const StateFile = {
  /** Held by the daemon that owns the directory. */
  lock: "lock",
  /** Record: which daemon left the devices to the next one. */
  handover: "handover",
  /** Record: what is needed to serve a front again. */
  trackerRecord: new FileKind("tracker-", [NUMBER]) as FileKind<[tracker: number]>,
  /** CBT map of a tracker, mapped shared. */
  cbtMap: new FileKind("cbt-", [NUMBER]) as FileKind<[tracker: number]>,
  /** The same for an original that has grown, until it takes the other one's name. */
  grownMap: new FileKind("cbt-grown-", [NUMBER]) as FileKind<[tracker: number]>,
  /** Record: what is needed to resume a snapshot. */
  snapshotRecord: new FileKind("snapshot-", [UUID]) as FileKind<[snapshot: string]>,
  /** Map of a diff area, mapped shared. Older daemons had the tracker's number in place of the area. */
  areaMap: new FileKind("area-", [UUID, `${UUID}|${NUMBER}`]) as FileKind<
    [snapshot: string, area: AreaId]
  >,
  /** Store of a snapshot: in this directory if it is in memory, else in the folder that the user names. */
  store: new FileKind("blksnap-store-", [UUID, NUMBER]) as FileKind<
    [snapshot: string, index: number]
  >,
  /** Written by the daemon's program: the configuration that the next daemon continues with. */
  served: "served.json",
  /** Written by the daemon's program: what happened, and what status said last. */
  events: "events.log",
  eventsFacts: "events-facts.json",
  /** Written by the daemon's program: hooks of a take that have begun and must be ended. */
  hooksBegun: "hooks.json",
  /** Record: a node, "major:minor", that is detached and has to be attached again. */
  returnRecord: new FileKind("return-", [`${NUMBER}:${NUMBER}`]) as FileKind<[node: string]>,
  /** Locked while the tables of a device-mapper node, "major:minor", may be exchanged. */
  exchange: new FileKind("exchange-", [`${NUMBER}:${NUMBER}`]) as FileKind<[node: string]>,
} as const;

/** Files in the persistent directory, on a medium. */
export const KeptFile = {
  /** Held by the daemon that owns the directory; contains the last two boots in which one did. */
  lock: "lock",
  /** Record: a device, and its state when tracking ended. */
  trackerRecord: new FileKind("tracker-", [UUID]) as FileKind<[uuid: string]>,
  /** The CBT map of a tracker. */
  cbtJournal: new FileKind("cbt-", [UUID], ".journal") as FileKind<[uuid: string]>,
  snapshotRecord: new FileKind("snapshot-", [UUID]) as FileKind<[snapshot: string]>,
  /** The location of the old data of one device of a snapshot; the area's id is in its header, too. */
  areaJournal: new FileKind("area-", [UUID], ".journal") as FileKind<[area: AreaId]>,
} as const;

export const RECORD_SUFFIX = ".record";
/** A copy of a record in the state directory, in case the record is damaged. */
export const COPY_SUFFIX = ".record-copy";
/** For files that take their name when they are complete: records, and journals. */
export const UNFINISHED_SUFFIX: string = DRAFT_SUFFIX;

const ofSnapshot = (snapshot: string): string => StateFile.snapshotRecord.name(snapshot);
/** The record that a file of each kind belongs to, by the first id in its name; null if it belongs to none. */
const RECORDS: Readonly<Record<keyof typeof StateFile, ((id: string) => string) | null>> = {
  lock: null,
  handover: null,
  trackerRecord: null,
  cbtMap: (tracker) => StateFile.trackerRecord.name(Number(tracker)),
  /** Left by a daemon that was killed in between: it belongs to none. */
  grownMap: null,
  snapshotRecord: null,
  areaMap: ofSnapshot,
  store: ofSnapshot,
  served: null,
  events: null,
  eventsFacts: null,
  hooksBegun: null,
  returnRecord: null,
  exchange: null,
};

/** The record that a file in the state directory belongs to; undefined if it belongs to none. */
export function recordOf(name: string): string | undefined {
  if (name.endsWith(COPY_SUFFIX)) return name.slice(0, -COPY_SUFFIX.length);
  for (const kind of Object.keys(RECORDS) as (keyof typeof StateFile)[]) {
    const file = StateFile[kind];
    const id = typeof file === "string" ? undefined : file.idsIn(name)?.[0];
    if (id !== undefined) return RECORDS[kind]?.(id);
  }
  return undefined;
}

/** True for a record, or its copy, that was not completed. */
export function isUnfinishedRecord(name: string): boolean {
  return [RECORD_SUFFIX, COPY_SUFFIX].some((suffix) => name.endsWith(suffix + UNFINISHED_SUFFIX));
}
