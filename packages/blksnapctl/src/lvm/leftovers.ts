/**
 * Takes down what a mount of a volume in an image has made: after umount, after a failure, and what a command that was
 * killed has left. It asks the device mapper alone: LVM could not read a group whose image is gone.
 */
import { readdirSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { keyOfNumber } from "@blksnap/linux-block";
import { outputOf } from "../programs.js";
import { idOfName, isBeingMade, MEMORY_FOLDER, overlayName } from "./names.js";

export interface Node {
  readonly name: string;
  readonly id: string;
  /** How many have it open: nodes above it, and other users. */
  readonly opens: number;
  /** How many of them are nodes above it. */
  readonly holders: number;
}

/** Of the system, replaced in tests. */
export interface LeftoverSystem {
  nodes(): Promise<Node[]>;
  remove(name: string): Promise<void>;
  /** Loop devices on files in memory, and those files. */
  loops(): Promise<{ readonly path: string; readonly file: string }[]>;
  detachLoop(path: string): Promise<void>;
  files(): string[];
  removeFile(name: string): void;
  isBeingMade(id: string): boolean;
}

function holdersOf(number: string): number {
  try {
    return readdirSync(`/sys/dev/block/${number}/holders`).length;
  } catch {
    return 0;
  }
}

/** The image in which a mounted volume is, by its overlay; undefined where that is gone. */
export function imageOf(
  id: string,
  nodes = "/dev/mapper",
  devices = "/sys/dev/block",
): string | undefined {
  try {
    const { rdev } = statSync(join(nodes, overlayName(id, 0)));
    // It has the memory below it, too.
    const below = readdirSync(join(devices, keyOfNumber(rdev), "slaves"));
    const image = below.find((name) => !name.startsWith("loop"));
    return image === undefined ? undefined : `/dev/${image}`;
  } catch {
    return undefined;
  }
}

/** @param text of dmsetup info, each node with name, major:minor and opens */
export function nodesIn(text: string, holders: (number: string) => number = holdersOf): Node[] {
  return text.split("\n").flatMap((line) => {
    const [name = "", major, minor, opens] = line.trim().split(" ");
    const id = idOfName(name);
    if (id === undefined) return [];
    return [{ name, id, opens: Number(opens), holders: holders(`${major}:${minor}`) }];
  });
}

/** As losetup says of a file that has no name any more. */
const DELETED = /(?:\\x20|\s)\(deleted\)$/;

/** @param text of losetup, each device with its file, which may be deleted */
export function loopsIn(text: string): { path: string; file: string }[] {
  return text.split("\n").flatMap((line) => {
    const [path = "", file = ""] = line.trim().replace(DELETED, "").split(/\s+/);
    if (!file.startsWith(`${MEMORY_FOLDER}/`)) return [];
    const name = file.slice(MEMORY_FOLDER.length + 1);
    return idOfName(name) === undefined ? [] : [{ path, file: name }];
  });
}

const leftoverSystem: LeftoverSystem = {
  nodes: async () => {
    const words = ["info", "--columns", "--noheadings", "--separator", " "];
    return nodesIn(await outputOf("dmsetup", ...words, "-o", "name,major,minor,open"));
  },
  remove: async (name) => {
    await outputOf("dmsetup", "remove", "--retry", name);
  },
  loops: async () => {
    const words = ["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"];
    return loopsIn(await outputOf("losetup", ...words));
  },
  detachLoop: async (path) => {
    await outputOf("losetup", "--detach", path);
  },
  files: () => readdirSync(MEMORY_FOLDER).filter((name) => idOfName(name) !== undefined),
  removeFile: (name) => unlinkSync(join(MEMORY_FOLDER, name)),
  isBeingMade,
};

/** Removes all of one mount, unless something uses it. @returns in words, what is left */
export async function takeDown(
  id: string,
  system: LeftoverSystem = leftoverSystem,
): Promise<string[]> {
  const nodes = async () => (await system.nodes()).filter((node) => node.id === id);
  const found = await nodes();
  const used = found.filter(({ opens, holders }) => opens > holders);
  if (used.length > 0) return used.map(({ name }) => `/dev/mapper/${name}, which is in use`);
  const failures = new Map<string, string>();
  // From the top: each removal lets go of what lies below.
  for (let left = found, before = Number.POSITIVE_INFINITY; left.length < before; ) {
    before = left.length;
    for (const { name } of left.filter(({ opens }) => opens === 0)) {
      await system.remove(name).catch(({ message }: Error) => failures.set(name, message));
    }
    left = await nodes();
  }
  for (const { path, file } of await system.loops()) {
    if (idOfName(file) !== id) continue;
    await system.detachLoop(path).catch(({ message }: Error) => failures.set(path, message));
  }
  for (const name of system.files()) if (idOfName(name) === id) system.removeFile(name);
  const left = [
    ...(await nodes()).map(({ name }) => name),
    ...(await system.loops()).filter(({ file }) => idOfName(file) === id).map(({ path }) => path),
  ];
  return left.map((name) => {
    const why = failures.get(name);
    return why === undefined ? name : `${name}: ${why}`;
  });
}

/** Takes down what commands that were killed have left. @returns in words, what is left all the same */
export async function removeLeftovers(system: LeftoverSystem = leftoverSystem): Promise<string[]> {
  const nodes = await system.nodes();
  const names = [...nodes.map(({ name }) => name), ...system.files()];
  const loops = (await system.loops()).map(({ file }) => file);
  const ids = new Set([...names, ...loops].flatMap((name) => idOfName(name) ?? []));
  const left: string[] = [];
  for (const id of ids) {
    const isUsed = nodes.some((node) => node.id === id && node.opens > node.holders);
    if (!isUsed && !system.isBeingMade(id)) left.push(...(await takeDown(id, system)));
  }
  return left;
}
