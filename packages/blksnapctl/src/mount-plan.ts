/**
 * How to mount the content of an image beside its original, which has the same superblock; chosen by blkid's report.
 * Content that cannot be mounted, or would lead to the original instead, is refused with the commands to use.
 */

/** blkid's report: TYPE, PTTYPE, UUID, USAGE. */
export type Probed = Readonly<Record<string, string>>;

export interface MountPlan {
  readonly type: string;
  /** In addition to ro or rw. */
  readonly options: readonly string[];
  /** Option that skips the journal's replay on a read-only image; undefined if there is none to skip. */
  readonly withoutJournal: string | undefined;
}

export interface Refusal {
  readonly why: string;
  readonly hint: string;
}

interface Host {
  /** Whether btrfs gives a second device of one file system its own id: Linux 6.7. */
  readonly hasTemporaryFsid: boolean;
}

type Way = (image: string, host: Host) => MountPlan | Refusal;

function plain(type: string, options: readonly string[] = [], withoutJournal?: string): Way {
  return () => ({ type, options, withoutJournal });
}

function refused(why: string, hint: (image: string) => string): Way {
  return (image) => ({ why, hint: hint(image) });
}

/** By blkid's TYPE; other types are mounted without special options. */
const WAYS: Readonly<Record<string, Way>> = {
  ext3: plain("ext3", [], "noload"),
  ext4: plain("ext4", [], "noload"),
  // Its uuid is the original's, which may be mounted.
  xfs: plain("xfs", ["nouuid"], "norecovery"),
  btrfs: (_, { hasTemporaryFsid }) => {
    if (hasTemporaryFsid)
      return { type: "btrfs", options: [], withoutJournal: "rescue=nologreplay" };
    return {
      why: "it is btrfs, and this kernel would mistake it for the original",
      hint: "Mount it on Linux 6.7 or newer, or on a host without the original: see blksnapctl nbd",
    };
  },
  // An image that is one has its volumes mounted (lvm/volume.ts): this lies in such a volume.
  LVM2_member: refused(
    "it is a physical volume of LVM in a logical volume",
    (volume) => `vgimportclone --basevgname copy ${volume}`,
  ),
  crypto_LUKS: refused(
    "it is encrypted with LUKS",
    (image) => `cryptsetup open --readonly ${image} copy; mount -o ro /dev/mapper/copy DIR`,
  ),
  linux_raid_member: refused(
    "it is a member of an md array",
    (image) => `mdadm --assemble --readonly /dev/md/copy ${image}; mount -o ro /dev/md/copy DIR`,
  ),
  zfs_member: refused(
    "it is a member of a ZFS pool",
    () => "zpool import -o readonly=on by the pool's number, where the original is not imported",
  ),
  swap: refused("it is swap space", () => "There are no files in it"),
};

export function mountPlan(image: string, probed: Probed, host: Host): MountPlan | Refusal {
  const { TYPE: type, PTTYPE: partitions } = probed;
  if (type !== undefined) return (WAYS[type] ?? plain(type))(image, host);
  if (partitions !== undefined) {
    const hint = `losetup --find --show --partscan --read-only ${image}; mount one of its partitions`;
    return { why: `it has a partition table (${partitions})`, hint };
  }
  const why = "no file system is found in it";
  return {
    why,
    hint: "See blkid -p; a database or a virtual machine may use it directly",
  };
}
