/** Device-mapper nodes in sysfs, whose reads never hang. */
import { join } from "node:path";
import { attribute, entriesOf } from "../sysfs-text.js";

export interface MappedNode {
  /** "major:minor". */
  readonly number: string;
  /** The kernel's name: below /dev/mapper, with unusual characters as \xNN. */
  readonly name: string;
  /** Empty if it has none. */
  readonly uuid: string;
  readonly sectors: number;
  readonly isReadOnly: boolean;
  readonly isSuspended: boolean;
  /** Devices of its live table: kernel names such as "sda1". */
  readonly slaves: readonly string[];
  /** Holders of the node: kernel names. */
  readonly holders: readonly string[];
}

/** Undefined if it is not a device-mapper node, or is gone. @param number "major:minor" */
export function mappedNodeOf(number: string, sysfs = "/sys"): MappedNode | undefined {
  return nodeIn(join(sysfs, "dev/block", number));
}

/** All nodes. */
export function mappedNodes(sysfs = "/sys"): MappedNode[] {
  const folder = join(sysfs, "block");
  return entriesOf(folder).flatMap((name) => nodeIn(join(folder, name)) ?? []);
}

function nodeIn(folder: string): MappedNode | undefined {
  const name = attribute(folder, "dm/name");
  const number = attribute(folder, "dev");
  if (name === null || number === null) return undefined;
  return {
    number,
    name,
    uuid: attribute(folder, "dm/uuid") ?? "",
    sectors: Number(attribute(folder, "size") ?? Number.NaN),
    isReadOnly: attribute(folder, "ro") === "1",
    isSuspended: attribute(folder, "dm/suspended") === "1",
    slaves: entriesOf(join(folder, "slaves")),
    holders: entriesOf(join(folder, "holders")),
  };
}
