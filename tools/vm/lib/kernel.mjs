/** The guest's kernel: Debian's cloud kernel, unpacked into the cache and never installed on the host. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder, createFolderAtOnce } from "./cache.mjs";
import { requireProgram, VmError } from "./host.mjs";

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

function unpackPackage(work, release) {
  const archive = readdirSync(work).find((name) => name.endsWith(".deb"));
  run(requireProgram("dpkg-deb", "dpkg"), ["-x", join(work, archive), join(work, "tree")]);
  const tree = join(work, "tree");
  renameSync(join(tree, "boot", `vmlinuz-${release}`), join(work, "vmlinuz"));
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
