/**
 * Finds and loads the native addon, or reports why none fits.
 *
 * Local builds (build/) precede the package's own (prebuilds/). Each has the program for separate calls beside it.
 */
import { accessSync, closeSync, constants, existsSync, openSync, readSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { UringError } from "./errors.js";

/** Node-API that the addon is compiled for (NAPI_VERSION in native/build.mjs): Node 18.17, 20.3. */
const NODE_API_VERSION = 9;
/** `e_machine` of ELF files, by Node's names. */
const ELF_MACHINES: Readonly<Record<number, string>> = {
  3: "ia32",
  21: "ppc64",
  22: "s390x",
  40: "arm",
  62: "x64",
  183: "arm64",
  243: "riscv64",
  258: "loong64",
};
const ELF_MACHINE_OFFSET = 18;

/** The machine and the Node that the addon must run on. */
export interface Platform {
  readonly platform: string;
  readonly arch: string;
  /** Version of glibc; undefined if Node uses another C library, such as musl. */
  readonly glibcVersion?: string;
  readonly nodeVersion: string;
  readonly nodeApiVersion: number;
}

/** Node reports it only in its diagnostic report; undefined without glibc. */
function glibcVersionHere(): string | undefined {
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  const before = report.excludeNetwork === true;
  // Otherwise the report resolves names of network peers.
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  report.excludeNetwork = before;
  return header?.glibcVersionRuntime;
}

/** @returns the platform of this process; takes a while */
export function thisPlatform(): Platform {
  const glibcVersion = glibcVersionHere();
  return {
    platform: process.platform,
    arch: process.arch,
    ...(glibcVersion === undefined ? {} : { glibcVersion }),
    nodeVersion: process.version,
    nodeApiVersion: Number(process.versions["napi"]),
  };
}

/** Candidate paths of the addon, in order. */
export function addonPaths(packageDir: string, platform: string, arch: string): string[] {
  return [
    join(packageDir, "build", "Release", "uring.node"),
    join(packageDir, "prebuilds", `${platform}-${arch}-glibc`, "uring.node"),
  ];
}

/** The addon's program for separate calls. */
export function programBeside(addonPath: string): string {
  return addonPath.replace(/\.node$/, "-apart");
}

function machineOf(path: string): string {
  const head = new Uint8Array(ELF_MACHINE_OFFSET + 2);
  const fd = openSync(path, "r");
  try {
    readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  const isElf = head[0] === 0x7f && String.fromCharCode(...head.subarray(1, 4)) === "ELF";
  if (!isElf) return "no machine at all (damaged)";
  const machine = new DataView(head.buffer).getUint16(ELF_MACHINE_OFFSET, true);
  return ELF_MACHINES[machine] ?? `ELF machine ${machine}`;
}

/** Why the dynamic linker would reject an existing file. */
function whyNotLinked(path: string, platform: Platform, error: unknown): string {
  const text = error instanceof Error ? (error.message.split("\n")[0] as string) : String(error);
  const machine = machineOf(path);
  if (machine !== platform.arch) return `is for ${machine}, and this Node is for ${platform.arch}`;
  if (platform.glibcVersion === undefined) {
    return `is for glibc, and this Node uses another C library, such as musl (${text})`;
  }
  const library = /version [`'](GLIBC|GLIBCXX|CXXABI)_([\d.]+)' not found/.exec(text);
  if (library?.[1] === "GLIBC") {
    return `needs glibc ${library[2]}, and this machine has ${platform.glibcVersion}`;
  }
  if (library !== null) return `needs a newer libstdc++, with ${library[1]}_${library[2]}`;
  if (text.includes("failed to map segment")) {
    return `cannot be mapped: its file system is mounted noexec, or a policy forbids it (${text})`;
  }
  return `cannot be loaded: ${text}`;
}

function whyNotProgram(path: string): string | undefined {
  if (!existsSync(path)) return `its program ${basename(path)} is not there`;
  try {
    accessSync(path, constants.X_OK);
    return undefined;
  } catch {
    return `its program ${basename(path)} may not be executed`;
  }
}

/** A reason that excludes every addon. */
function whyNone(platform: Platform): string | undefined {
  if (platform.platform !== "linux") {
    return `io_uring is a part of Linux, and this is ${platform.platform}`;
  }
  if (!(platform.nodeApiVersion >= NODE_API_VERSION)) {
    return (
      `Node ${platform.nodeVersion} has Node-API ${platform.nodeApiVersion}, and ` +
      `${NODE_API_VERSION} is needed: use Node 20.19 or later`
    );
  }
  return undefined;
}

function describe({ platform, arch, glibcVersion, nodeVersion }: Platform): string {
  const library = glibcVersion === undefined ? "no glibc" : `glibc ${glibcVersion}`;
  return `${platform} ${arch}, ${library}, Node ${nodeVersion}`;
}

export interface LoadedAddon {
  readonly path: string;
  readonly exports: unknown;
}

/**
 * @param platformOf called only if something is wrong
 * @throws UringError ADDON_MISSING with a line for each path
 */
export function loadAddon(
  packageDir: string,
  platformOf: () => Platform = thisPlatform,
  load: (path: string) => unknown = createRequire(import.meta.url),
): LoadedAddon {
  const reasons: string[] = [];
  let cause: unknown;
  for (const path of addonPaths(packageDir, process.platform, process.arch)) {
    if (!existsSync(path)) {
      reasons.push(`${path} is not there`);
      continue;
    }
    const problem = whyNotProgram(programBeside(path));
    if (problem !== undefined) {
      reasons.push(`${path}: ${problem}`);
      continue;
    }
    try {
      return { path, exports: load(path) };
    } catch (error) {
      cause = error;
      reasons.push(`${path} ${whyNotLinked(path, platformOf(), error)}`);
    }
  }
  const platform = platformOf();
  const why = whyNone(platform);
  const text =
    why ??
    `no native addon fits this machine (${describe(platform)}):\n` +
      `${reasons.map((reason) => `  ${reason}\n`).join("")}` +
      "Reinstall the package; where it has no prebuilt one for this machine, build it: " +
      "npm explore @blksnap/uring -- npm run build:native (needs g++ and liburing-dev)";
  throw new UringError("ADDON_MISSING", `@blksnap/uring: ${text}`, 0, cause);
}
