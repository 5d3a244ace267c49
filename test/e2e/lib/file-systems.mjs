/** File systems on the devices under test. */
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { run } from "./command.mjs";

const MAKE = {
  ext4: ["mkfs.ext4", "-q", "-F"],
  // The kernel zeroes the inode tables of a new ext4 for seconds after its mount. A loop device hands this
  // down as fallocate(), which no freeze of a file system below holds up: its journal then warns.
  "zeroed ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
  xfs: ["mkfs.xfs", "-q", "-f"],
  btrfs: ["mkfs.btrfs", "-q", "-f"],
  vfat: ["busybox", "mkdosfs"],
};

/** Each changes nothing, and fails if the file system is damaged. */
const CHECK = {
  ext4: ["e2fsck", "-f", "-n"],
  xfs: ["xfs_repair", "-n"],
  // Forced: it considers an image mounted, because the file system with its uuid is.
  btrfs: ["btrfs", "check", "--readonly", "--force", "--check-data-csum"],
};

/** XFS refuses a second mount with the same uuid without this option. */
const IMAGE_OPTIONS = { ext4: [], vfat: [], xfs: ["nouuid"] };

export async function makeFileSystem(type, device) {
  await run([...MAKE[type], device]);
}

/** Mounts the device on a folder of its own until the test ends or unmount() is called. */
export async function mount(t, device, options = []) {
  const path = join(t.folder, t.name("mnt-"));
  mkdirSync(path);
  await run(["mount", ...(options.length > 0 ? ["-o", options.join(",")] : []), device, path]);
  let mounted = true;
  async function unmount() {
    if (!mounted) return;
    await run(["umount", path]);
    mounted = false;
    rmdirSync(path);
  }
  t.defer(unmount);
  return { path, unmount };
}

/** A mounted file system with a file that the kernel finds on the device only, not in its memory. */
export async function fileToBeRead(t, device) {
  await makeFileSystem("ext4", device);
  const { path, unmount } = await mount(t, device);
  await run(["mkdir", join(path, "folder")]);
  await run(["truncate", "--size=1M", join(path, "folder/file")]);
  await unmount();
  const mounted = await mount(t, device);
  return { file: join(mounted.path, "folder/file"), unmount: mounted.unmount };
}

/** Mounts an image beside its original. */
export function mountImage(t, type, image, options = []) {
  return mount(t, image, [...IMAGE_OPTIONS[type], ...options]);
}

/** Fails unless the file system on the device is consistent; changes nothing. */
export async function checkFileSystem(type, device) {
  await run([...CHECK[type], device]);
}

/** Checksums of all files below a folder, as `md5sum -c` reads them. */
export function checksums(folder) {
  return run(["sh", "-c", "find . -type f -print0 | sort -z | xargs -0 -r md5sum"], {
    cwd: folder,
  });
}

/** Fails unless every file below the folder that the checksums name is there and has its sum. */
export async function assertChecksums(sums, folder) {
  await run(["md5sum", "--check", "--quiet"], { cwd: folder, input: sums });
}
