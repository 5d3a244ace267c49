/** Device-mapper nodes as sysfs shows them: a look that never waits. */
import { join } from "node:path";
import { attribute, entriesOf } from "../sysfs-text.js";

export interface MappedNode {
  /** "major:minor". */
  readonly number: string;
  /** As the kernel has it: below /dev/mapper, and unusual characters written as \xNN. */
  readonly name: string;
  /** Empty where it has none. */
  readonly uuid: string;
  readonly sectors: number;
  readonly isReadOnly: boolean;
  readonly isSuspended: boolean;
  /** What its live table leads to: names of the kernel, such as "sda1". */
  readonly slaves: readonly string[];
  /** What holds it: names of the kernel. */
  readonly holders: readonly string[];
}

/** Undefined for what is not a device-mapper node, or is gone. @param number "major:minor" */
export function mappedNodeOf(number: string, sysfs = "/sys"): MappedNode | undefined {
  return nodeIn(join(sysfs, "dev/block", number));
}

/** All that there are. */
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
