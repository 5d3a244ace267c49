/** The guest's kernel: Debian's cloud kernel, unpacked into the cache and never installed on the host. */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join } from "node:path";
import { cacheFolder, createFolderAtOnce } from "./cache.mjs";
import { findProgram, requireProgram, VmError } from "./host.mjs";

const SERIES = "6.12";
const PACKAGE = new RegExp(`^linux-image-(${SERIES.replace(".", "\\.")}\\.\\S+-cloud-amd64)$`);
const FOLDER_PREFIX = "kernel-";

function run(program, args, options = {}) {
  const result = spawnSync(program, args, { encoding: "utf8", maxBuffer: 64 << 20, ...options });
  if (result.status === 0) return result.stdout ?? "";
  const detail = (result.stderr || result.error?.message || "").trim();
  throw new VmError(`"${program} ${args.join(" ")}" failed: ${detail}`);
}

function compareVersions(a, b) {
  return a.localeCompare(b, "en", { numeric: true });
}

/** @returns {{release: string, folder: string, image: string, modulesFolder: string} | undefined} the newest one in the cache */
export function cachedKernel() {
  const release = readdirSync(cacheFolder())
    .filter((name) => name.startsWith(FOLDER_PREFIX) && !name.includes(".new-"))
    .map((name) => name.slice(FOLDER_PREFIX.length))
    .sort(compareVersions)
    .at(-1);
  if (!release) return undefined;
  const folder = join(cacheFolder(), FOLDER_PREFIX + release);
  return {
    release,
    folder,
    image: join(folder, "vmlinuz"),
    modulesFolder: join(folder, "lib/modules"),
  };
}

function newestPackage() {
  const aptCache = requireProgram("apt-cache", "apt");
  const listed = run(aptCache, ["pkgnames", `linux-image-${SERIES}`]).split("\n");
  const newest = listed
    .filter((name) => PACKAGE.test(name))
    .sort(compareVersions)
    .at(-1);
  if (newest) return newest;
  throw new VmError(
    `apt lists no package linux-image-${SERIES}.*-cloud-amd64; run "apt-get update" (Debian 12 or newer, with its security updates)`,
  );
}

/** Loading an uncompressed module is several times quicker in an emulated guest, so the work is done here, once. */
function unpackModules(libFolder, release) {
  const root = join(libFolder, "modules", release);
  const compressed = readdirSync(root, { recursive: true })
    .filter((name) => name.endsWith(".ko.xz"))
    .map((name) => join(root, name));
  if (compressed.length > 0) {
    run(requireProgram("xz", "xz-utils"), ["-d", "-T0", "--", ...compressed]);
  }
}

const ZSTD_MAGIC = Buffer.from([0x28, 0xb5, 0x2f, 0xfd]);
const ELF_MAGIC = Buffer.from("\x7fELF");

/**
 * A kernel image unpacks itself at each boot, which takes an emulated processor over a second. qemu also boots the kernel that is
 * inside; where that cannot be had, the image serves as it is.
 */
function unpackImage(imagePath) {
  const zstd = findProgram("zstd");
  const image = readFileSync(imagePath);
  const start = image.indexOf(ZSTD_MAGIC);
  if (!zstd || start < 0) return;
  const unpackedPath = `${imagePath}.elf`;
  const output = openSync(unpackedPath, "w");
  // Bytes that follow the compressed part make zstd fail after it wrote everything, so its status says nothing.
  spawnSync(zstd, ["-dcq"], { input: image.subarray(start), stdio: ["pipe", output, "ignore"] });
  closeSync(output);
  const isKernel = readFileSync(unpackedPath).subarray(0, ELF_MAGIC.length).equals(ELF_MAGIC);
  if (isKernel) renameSync(unpackedPath, imagePath);
  else rmSync(unpackedPath);
}

function unpackPackage(work, release) {
  const archive = readdirSync(work).find((name) => name.endsWith(".deb"));
  run(requireProgram("dpkg-deb", "dpkg"), ["-x", join(work, archive), join(work, "tree")]);
  const tree = join(work, "tree");
  renameSync(join(tree, "boot", `vmlinuz-${release}`), join(work, "vmlinuz"));
  unpackImage(join(work, "vmlinuz"));
  const lib = existsSync(join(tree, "lib/modules")) ? "lib" : "usr/lib";
  mkdirSync(join(work, "lib"));
  renameSync(join(tree, lib, "modules"), join(work, "lib/modules"));
  unpackModules(join(work, "lib"), release);
  run(requireProgram("depmod", "kmod"), ["-b", work, release]);
  rmSync(tree, { recursive: true });
  rmSync(join(work, archive));
}

/** @returns the kernel, fetched into the cache when it is not there yet */
export function ensureKernel({ onProgress = () => {} } = {}) {
  const present = cachedKernel();
  if (present) return present;
  const name = newestPackage();
  const release = PACKAGE.exec(name)[1];
  onProgress(`getting the guest kernel ${release} (34 MB)`);
  createFolderAtOnce(join(cacheFolder(), FOLDER_PREFIX + release), (work) => {
    // Without this option apt tries, and says that it cannot, to write here as an unprivileged user.
    run(
      requireProgram("apt-get", "apt"),
      ["-o", "APT::Sandbox::User=root", "-q", "download", name],
      {
        cwd: work,
      },
    );
    unpackPackage(work, release);
  });
  return cachedKernel();
}

/** @returns {string[]} the names of the files of the given modules and of all they depend on, in loading order */
export function modulesInOrder(kernel, names) {
  const root = join(kernel.modulesFolder, kernel.release);
  const byName = new Map();
  for (const line of readFileSync(join(root, "modules.dep"), "utf8").split("\n")) {
    const [file, needs = ""] = line.split(":");
    const name = file
      .split("/")
      .at(-1)
      .replace(/\.ko.*$/, "")
      .replaceAll("-", "_");
    byName.set(name, { path: join(root, file), needs: needs.split(" ").filter(Boolean).reverse() });
  }
  const paths = new Set();
  for (const name of names) {
    const found = byName.get(name.replaceAll("-", "_"));
    if (!found) continue;
    for (const need of found.needs) paths.add(join(root, need));
    paths.add(found.path);
  }
  return [...paths];
}
