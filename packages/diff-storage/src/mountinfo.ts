/** One line of /proc/PID/mountinfo: a file system at a place. */
export interface Mount {
  readonly mountPoint: string;
  /** "ext4", "btrfs", "tmpfs"… */
  readonly fsType: string;
  /** What was mounted: often a device's path. */
  readonly source: string;
  /** Options of the file system itself, such as "upperdir=/x". */
  readonly superOptions: readonly string[];
}

/** Undoes the octal escapes of blanks and backslashes. */
function unescapeField(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** Reads the lines of a mountinfo file; lines of another shape are passed over. */
export function parseMountinfo(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const [left, right] = line.split(" - ", 2);
    const place = left.split(" ");
    const what = (right ?? "").split(" ");
    if (place.length < 6 || what.length < 3) return [];
    return [
      {
        mountPoint: unescapeField(place[4]),
        fsType: what[0],
        source: unescapeField(what[1]),
        superOptions: what[2].split(",").map(unescapeField),
      },
    ];
  });
}

/** The mount that an absolute, resolved path lies on; the last one where several cover it. */
export function mountOf(path: string, mounts: readonly Mount[]): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const { mountPoint } = mount;
    const under = mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
    if (under && (found === undefined || mountPoint.length >= found.mountPoint.length)) {
      found = mount;
    }
  }
  return found;
}

/** Value of an option "name=value"; undefined when it is not there. */
export function superOption(mount: Mount, name: string): string | undefined {
  const option = mount.superOptions.find((text) => text.startsWith(`${name}=`));
  return option?.slice(name.length + 1);
}
