/** Mounted file systems, from mountinfo (proc_pid_mountinfo(5)). */

/** One line of mountinfo. */
export interface Mount {
  readonly id: number;
  readonly parent: number;
  /** "major:minor" of the file system; of no device where it has several or none. */
  readonly device: string;
  /** The mounted part of the file system: a path in it. */
  readonly root: string;
  /** For comparisons and messages; a name that is not UTF-8 is approximate. */
  readonly mountPoint: string;
  /** The exact name. */
  readonly mountPointBytes: Buffer;
  readonly fsType: string;
  /** The device argument of mount. */
  readonly source: string;
  /** Options of the file system itself, not of this mount of it. */
  readonly superOptions: readonly string[];
}

/** Undoes the octal escapes (space, tab, newline, backslash) of mountinfo and swaps. */
export function fieldBytes(field: string): Buffer {
  const raw = field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
  return Buffer.from(raw, "latin1");
}

function parseLine(line: string): Mount | undefined {
  const [left, right] = line.split(" - ");
  if (left === undefined || right === undefined) return undefined;
  const [id, parent, device, root, mountPoint, options] = left.split(" ");
  const [fsType, source, superOptions] = right.split(" ");
  if (device === undefined || mountPoint === undefined || options === undefined) return undefined;
  const mountPointBytes = fieldBytes(mountPoint);
  return {
    id: Number(id),
    parent: Number(parent),
    device,
    root: fieldBytes(root ?? "/").toString(),
    mountPoint: mountPointBytes.toString(),
    mountPointBytes,
    fsType: fsType ?? "",
    source: fieldBytes(source ?? "").toString(),
    superOptions: (superOptions ?? "").split(",").map((option) => fieldBytes(option).toString()),
  };
}

/**
 * Parses mountinfo text; skips lines that it does not understand.
 * @param text one character per byte (latin1): names need not be UTF-8
 */
export function parseMountinfo(text: string): Mount[] {
  return text
    .split("\n")
    .map(parseLine)
    .filter((mount) => mount !== undefined);
}

function lies(path: string, mountPoint: string): boolean {
  if (mountPoint === "/") return path.startsWith("/");
  return path === mountPoint || path.startsWith(`${mountPoint}/`);
}

/** The mount of an absolute path, found by walking mount by mount, as the kernel does. */
export function mountAt(path: string, mounts: readonly Mount[]): Mount | undefined {
  const ids = new Set(mounts.map(({ id }) => id));
  let here = mounts.find(({ id, parent }) => parent === id || !ids.has(parent));
  // Each mount is left for another at most once.
  for (let steps = 0; here !== undefined && steps < mounts.length; steps++) {
    let next: Mount | undefined;
    for (const mount of mounts) {
      if (mount.parent !== here.id || mount === here || !lies(path, mount.mountPoint)) continue;
      if (next === undefined || mount.mountPoint.length < next.mountPoint.length) next = mount;
    }
    if (next === undefined) return here;
    here = next;
  }
  return here;
}

/** Value of an option "name=value"; undefined if it is absent. */
export function superOption(mount: Mount, name: string): string | undefined {
  const option = mount.superOptions.find((text) => text.startsWith(`${name}=`));
  return option?.slice(name.length + 1);
}
