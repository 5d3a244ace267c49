/** What LVM says of the images of a snapshot: the group that one of them is part of, and its volumes. */

/** A row of pvs; a volume that is not found has no name of a device. */
export interface PhysicalRow {
  readonly pv_name: string;
  readonly pv_uuid: string;
  readonly vg_name: string;
  readonly vg_uuid: string;
  readonly pv_missing: string;
}

/** A row of lvs. */
export interface LogicalRow {
  readonly lv_name: string;
  readonly lv_attr: string;
  readonly lv_size: string;
  readonly vg_uuid: string;
}

export const PHYSICAL_FIELDS = "pv_name,pv_uuid,vg_name,vg_uuid,pv_missing";
export const LOGICAL_FIELDS = "lv_name,lv_attr,lv_size,vg_uuid";

/** A copy of it can be made: all of its physical volumes are there. */
export interface Group {
  readonly name: string;
  /** Its physical volumes. */
  readonly images: readonly string[];
  /** Logical volumes that may hold a file system. */
  readonly volumes: readonly LogicalRow[];
}

export interface Refusal {
  readonly why: string;
  readonly hint: string;
}

/** First characters of lv_attr: pools and what they are made of, from lvs(8). */
const POOLS: ReadonlySet<string> = new Set(["t", "T", "e", "D", "d", "C", "l", "p"]);

/** @throws Error where that is no report of LVM */
export function rowsOf<Row>(text: string, kind: "pv" | "lv"): Row[] {
  const { report } = JSON.parse(text) as { report: Record<string, Row[] | undefined>[] };
  return report.flatMap((one) => one[kind] ?? []);
}

/**
 * @param nameOf where a path leads to
 * @param originalOf the device of this machine that has a physical volume, by its uuid
 */
export function groupOf(
  image: string,
  physical: readonly PhysicalRow[],
  logical: readonly LogicalRow[],
  nameOf: (path: string) => string,
  originalOf: (uuid: string) => string | undefined,
): Group | Refusal {
  const own = physical.find(({ pv_name: name }) => nameOf(name) === image);
  if (own === undefined || own.vg_uuid === "") {
    const why = "it is a physical volume of LVM, and belongs to no volume group";
    return { why, hint: "There are no files in it" };
  }
  const group = own.vg_name;
  const all = physical.filter(({ vg_uuid: uuid }) => uuid === own.vg_uuid);
  const missing = all.filter(({ pv_name: name, pv_missing: isMissing }) => {
    return isMissing !== "" || !name.startsWith("/");
  });
  if (missing.length > 0) {
    const names = missing.map(({ pv_uuid: uuid }) => {
      const device = originalOf(uuid);
      return device === undefined ? uuid : `${uuid} (${device})`;
    });
    const why = `it is a part of the volume group ${group}, whose other physical volumes are not in the snapshot: ${names.join(", ")}`;
    return { why, hint: "Take a snapshot of all its physical volumes at once" };
  }
  const volumes = logical.filter(({ vg_uuid: uuid, lv_attr: kind }) => {
    return uuid === own.vg_uuid && !POOLS.has(kind[0] ?? "");
  });
  return { name: group, images: all.map(({ pv_name: name }) => nameOf(name)), volumes };
}

/** @param wanted as users have said; undefined: the only one */
export function chosenVolume(
  { name, volumes }: Group,
  wanted: string | undefined,
): LogicalRow | Refusal {
  const named = volumes.map((one) => `${one.lv_name} (${one.lv_size.trim()})`).join(", ");
  if (wanted !== undefined) {
    const found = volumes.find(({ lv_name: its }) => its === wanted);
    if (found !== undefined) return found;
    return { why: `the volume group ${name} has no volume ${wanted}`, hint: `It has ${named}` };
  }
  const [only, ...others] = volumes;
  if (only === undefined) {
    const why = `the volume group ${name} has no logical volumes`;
    return { why, hint: "There are no files in it" };
  }
  if (others.length === 0) return only;
  const why = `the volume group ${name} has several logical volumes`;
  return { why, hint: `Choose one with --lv: ${named}` };
}

/** As the device mapper calls a volume of a group. */
export function mapperName(group: string, volume: string): string {
  return [group, volume].map((name) => name.replaceAll("-", "--")).join("-");
}
