/** Whether a table leads to the same data as an earlier one, and perhaps to more behind it. */

interface Segment {
  readonly start: number;
  readonly sectors: number;
  /** Type and target. A longer segment of the same target begins with the same data. */
  readonly leadsTo: string;
}

/**
 * Two tables with the same targets do not disturb each other: linear and striped have no state of their own, and the
 * state of a thin volume belongs to its pool, which knows the volume by its number and opens it any number of times
 * (drivers/md/dm-thin.c: thin_ctr).
 */
export const MAPPED: ReadonlySet<string> = new Set(["linear", "striped", "thin"]);

/** Undefined if it leads elsewhere, or to less. @param now, before: in dmsetup's format */
export function growthOf(now: string, before: string): "same" | "grown" | undefined {
  if (before === "") return undefined;
  if (now === before) return "same";
  const [after, first] = [segmentsOf(now), segmentsOf(before)];
  const isKept = first.every((segment, index) => {
    const other = after[index];
    if (other === undefined || !isSameStart(other, segment)) return false;
    const isLast = index === first.length - 1;
    return isLast ? other.sectors >= segment.sectors : other.sectors === segment.sectors;
  });
  return isKept && after.every(isMapped) ? "grown" : undefined;
}

function segmentsOf(table: string): Segment[] {
  return table.split("\n").map((line) => {
    const [start, sectors, ...leadsTo] = line.trim().split(" ");
    return { start: Number(start), sectors: Number(sectors), leadsTo: leadsTo.join(" ") };
  });
}

function isSameStart(one: Segment, other: Segment): boolean {
  return one.start === other.start && one.leadsTo === other.leadsTo;
}

function isMapped({ leadsTo }: Segment): boolean {
  return MAPPED.has(leadsTo.split(" ")[0] ?? "");
}
