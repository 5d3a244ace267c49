/**
 * The disk of a machine with Debian 13, systemd and udev, and the installed package.
 *
 * mmdebstrap fetches the distribution once, into the cache. It needs root, as the machine does.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { makePackage } from "../../tools/release/debian.mjs";
import { ROOT } from "../../tools/release/manifests.mjs";
import { findProgram } from "../../tools/vm/index.mjs";

const SUITE = "trixie";
const PACKAGES =
  "systemd-sysv,udev,kmod,dmsetup,lvm2,e2fsprogs,xfsprogs,nodejs,passwd,util-linux,libstdc++6," +
  "cryptsetup-bin,systemd-cryptsetup,fio,mdadm,thin-provisioning-tools";
const GUEST = fileURLToPath(new URL("guest", import.meta.url));
const ROOT_DISK_BYTES = 3 * 2 ** 30;

const run = (command, args) =>
  execFileSync(command, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

/** @returns {string} an archive of the distribution */
function distribution() {
  const folder = join(ROOT, ".cache", "boot");
  const of = createHash("sha256").update(PACKAGES).digest("hex").slice(0, 8);
  const archive = join(folder, `${SUITE}-${of}.tar`);
  if (existsSync(archive)) return archive;
  if (!findProgram("mmdebstrap")) throw new Error("mmdebstrap is missing (apt install mmdebstrap)");
  console.log(`getting Debian ${SUITE} (330 MB)`);
  mkdirSync(folder, { recursive: true });
  const draft = `${archive}.new-${process.pid}.tar`;
  const without = ["doc", "locale", "man"].map(
    (name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`,
  );
  run("mmdebstrap", ["--variant=minbase", `--include=${PACKAGES}`, ...without, SUITE, draft]);
  renameSync(draft, archive);
  return archive;
}

function addTest(root) {
  cpSync(GUEST, join(root, "root/test"), { recursive: true });
  // Whose units are written from the page.
  copyFileSync(join(ROOT, "docs/monitoring.md"), join(root, "root/test/monitoring.md"));
  const units = join(root, "etc/systemd/system");
  copyFileSync(join(GUEST, "blksnap-test.service"), join(units, "blksnap-test.service"));
  for (const target of ["multi-user", "rescue"]) {
    const wants = join(units, `${target}.target.wants`);
    mkdirSync(wants, { recursive: true });
    symlinkSync("../blksnap-test.service", join(wants, "blksnap-test.service"));
  }
  writeFileSync(join(root, "etc/modules-load.d/dm.conf"), "dm_mod\n");
  // LVM knows no disks of User Mode Linux.
  writeFileSync(join(root, "etc/lvm/lvmlocal.conf"), 'devices {\n types = [ "ubd", 16 ]\n}\n');
  writeFileSync(join(root, "etc/hostname"), "boot\n");
}

/**
 * @param {{release: string, modulesFolder: string}} kernel
 * @param {string} folder where it is made
 * @param {string} rootDevice its name in the machine
 * @returns {Promise<string>} the path of the image
 */
export async function makeRootDisk(kernel, folder, rootDevice) {
  const archive = distribution();
  const root = mkdtempSync(join(tmpdir(), "blksnap-boot-root-"));
  try {
    run("tar", ["-xf", archive, "-C", root, "--exclude=./dev/*"]);
    const modules = join(root, "usr/lib/modules");
    mkdirSync(modules, { recursive: true });
    cpSync(join(kernel.modulesFolder, kernel.release), join(modules, kernel.release), {
      recursive: true,
    });
    await makePackage({ into: join(root, "root") });
    const [deb] = readdirSync(join(root, "root")).filter((name) => name.endsWith(".deb"));
    run("chroot", [root, "dpkg", "--install", `/root/${deb}`]);
    addTest(root);
    writeFileSync(join(root, "etc/fstab"), `${rootDevice} / ext4 defaults 0 1\n`);
    const image = join(folder, "root.img");
    run("truncate", ["-s", String(ROOT_DISK_BYTES), image]);
    run("mke2fs", ["-q", "-F", "-t", "ext4", "-d", root, image]);
    return image;
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** @returns {string} a file of a disk that no machine has */
export function readFromDisk(image, path) {
  // debugfs ignores the journal, which holds everything that a power cut has left.
  const { status, stderr } = spawnSync("e2fsck", ["-p", "-E", "journal_only", image]);
  // 1 says that it has changed something.
  if (status === null || status > 1) throw new Error(`e2fsck of ${image}: ${status} ${stderr}`);
  return run("debugfs", ["-R", `cat ${path}`, image]);
}
