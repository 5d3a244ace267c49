/** Device-mapper nodes as sysfs shows them: a look that never waits. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

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
}

/** Undefined for what is no device-mapper node, or is gone. @param number "major:minor" */
export function mappedNodeOf(number: string, sysfs = "/sys"): MappedNode | undefined {
  return nodeIn(join(sysfs, "dev/block", number));
}

/** All that there are. */
export function mappedNodes(sysfs = "/sys"): MappedNode[] {
  const folder = join(sysfs, "block");
  return namesIn(folder).flatMap((name) => nodeIn(join(folder, name)) ?? []);
}

function nodeIn(folder: string): MappedNode | undefined {
  const name = text(join(folder, "dm/name"));
  const number = text(join(folder, "dev"));
  if (name === undefined || number === undefined) return undefined;
  return {
    number,
    name,
    uuid: text(join(folder, "dm/uuid")) ?? "",
    sectors: Number(text(join(folder, "size"))),
    isReadOnly: text(join(folder, "ro")) === "1",
    isSuspended: text(join(folder, "dm/suspended")) === "1",
    slaves: namesIn(join(folder, "slaves")),
  };
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}
