/** The guest's kernels: Debian's cloud kernels, unpacked into the cache and never installed on the host. */
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
import { compareVersions, fetchKernel, listedKernels, run, withNewestKernel } from "./packages.mjs";

/** The series of the stock kernel; backports have newer ones. */
const STOCK = "6.12";
export const NEWEST = "newest";
/** What `--kernel` takes. */
export const KERNELS = [STOCK, NEWEST];
const FOLDER_PREFIX = "kernel-";

function isOfSeries(release, series) {
  const isStock = release.startsWith(`${STOCK}.`);
  return series === STOCK ? isStock : !isStock;
}

/**
 * @param {string} series one of KERNELS
 * @returns {{release: string, folder: string, image: string, modulesFolder: string} | undefined} the newest one in the cache
 */
export function cachedKernel(series = STOCK) {
  const release = readdirSync(cacheFolder())
    .filter((name) => name.startsWith(FOLDER_PREFIX) && !name.includes(".new-"))
    .map((name) => name.slice(FOLDER_PREFIX.length))
    .filter((name) => isOfSeries(name, series))
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

function stockRelease() {
  const newest = listedKernels()
    .filter((release) => isOfSeries(release, STOCK))
    .at(-1);
  if (newest) return newest;
  throw new VmError(
    `apt lists no package linux-image-${STOCK}.*-cloud-amd64; run "apt-get update" (Debian 12 or newer, with its security updates)`,
  );
}

/**
 * Loading an uncompressed module is several times faster in an emulated guest, so they are decompressed here, once.
 */
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
  // Bytes after the compressed part make zstd fail after it wrote everything, so ignore its status.
  spawnSync(zstd, ["-dcq"], { input: image.subarray(start), stdio: ["pipe", output, "ignore"] });
  closeSync(output);
  const isKernel = readFileSync(unpackedPath).subarray(0, ELF_MAGIC.length).equals(ELF_MAGIC);
  if (isKernel) renameSync(unpackedPath, imagePath);
  else rmSync(unpackedPath);
}

/** Converts what was unpacked below `tree` into the form of a cached kernel. */
function arrange(work, release) {
  const tree = join(work, "tree");
  const lib = existsSync(join(tree, "lib/modules")) ? "lib" : "usr/lib";
  const images = [
    join(tree, "boot", `vmlinuz-${release}`),
    join(tree, lib, "modules", release, "vmlinuz"),
  ];
  const image = images.find((path) => existsSync(path));
  if (image === undefined) throw new VmError(`the packages of ${release} have no kernel in them`);
  renameSync(image, join(work, "vmlinuz"));
  unpackImage(join(work, "vmlinuz"));
  mkdirSync(join(work, "lib"));
  renameSync(join(tree, lib, "modules"), join(work, "lib/modules"));
  unpackModules(join(work, "lib"), release);
  run(requireProgram("depmod", "kmod"), ["-b", work, release]);
  rmSync(tree, { recursive: true });
}

/**
 * @param {object} [options]
 * @param {string} [options.kernelSeries] one of KERNELS
 * @param {(text: string) => void} [options.onProgress]
 * @returns the kernel, fetched into the cache when it is not there yet
 */
export function ensureKernel({ kernelSeries = STOCK, onProgress = () => {} } = {}) {
  const present = cachedKernel(kernelSeries);
  if (present) return present;
  const fetch = (release, apt = []) => {
    onProgress(`getting the guest kernel ${release} (34 MB)`);
    createFolderAtOnce(join(cacheFolder(), FOLDER_PREFIX + release), (work) => {
      fetchKernel(release, work, apt);
      arrange(work, release);
    });
  };
  if (kernelSeries === NEWEST) withNewestKernel(fetch);
  else fetch(stockRelease());
  return cachedKernel(kernelSeries);
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
