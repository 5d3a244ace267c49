/**
 * blksnapd --install-units, --uninstall-units: installs what a distribution's package contains besides programs, for
 * programs that npm has installed. Units start the programs in their place.
 *
 * Only files with the mark are ever replaced or removed, and nothing is written before all checks have passed.
 */
import { spawnSync } from "node:child_process";
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { ExitStatus } from "./exit-status.js";
import { complain } from "./log.js";

const MARK = "# Written by blksnapd --install-units";
const SERVICE = "blksnapd.service";
const SOCKETS = ["blksnapd.socket", "blksnapd-nbd.socket", "blksnapd-nbd-tcp.socket"];
/** States in which a service has no process; empty: a system without systemctl. */
const STOPPED_STATES = ["inactive", "failed", "unknown", ""];
const HELPER_FOLDER = "/usr/local/lib/blksnap";

/** What is wrong, and what to do. */
class UnitsError extends Error {}

export interface UnitsSurroundings {
  /** The package's folder, with systemd, udev and so on. */
  readonly packageFolder: string;
  /** Absolute path of Node. */
  readonly node: string;
  readonly searchPath: string;
  readonly userId: number;
  /** Output of systemctl is-active; empty if there is no systemctl. */
  readonly activeState: (unit: string) => string;
  /** Prefix of each path that is written. */
  readonly root?: string;
}

interface UnitFile {
  readonly path: string;
  readonly text: string;
  readonly mode: number;
}

function requireRoot({ userId }: UnitsSurroundings, option: string): void {
  if (userId !== 0) throw new UnitsError(`${option} writes to /etc and needs root. Try sudo`);
}

/** The real path of a program that a shell finds. */
function findProgram(name: string, searchPath: string): string {
  for (const folder of searchPath.split(delimiter).filter((path) => path.startsWith("/"))) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return realpathSync(path);
    } catch {
      // Not in this folder.
    }
  }
  throw new UnitsError(`${name} is not in $PATH, and units call it. Try npm install -g ${name}`);
}

function marked(text: string): string {
  const [first = "", ...rest] = text.split("\n");
  if (!first.startsWith("#!")) return `${MARK}\n${text}`;
  return [first, MARK, ...rest].join("\n");
}

/** Splits a condition on several files: each line takes one path. */
function oneEach(condition: string): string {
  return condition.replace(/ (?=\/)/g, "\nConditionPathExists=");
}

function isOurs(path: string): boolean {
  return lstatSync(path).isFile() && readFileSync(path, "utf8").split("\n", 2).includes(MARK);
}

/** Whether nothing exists there; a dangling link counts as existing. */
function isFree(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) === undefined;
}

class UnitFiles {
  readonly #surroundings: UnitsSurroundings;
  readonly #root: string;

  constructor(surroundings: UnitsSurroundings) {
    this.#surroundings = surroundings;
    this.#root = surroundings.root ?? "";
  }

  /** @throws UnitsError if a program is missing, or the package has none of the files */
  all(): UnitFile[] {
    const { packageFolder, node, searchPath } = this.#surroundings;
    if (!existsSync(join(packageFolder, "systemd", SERVICE))) {
      const what = "this installation contains no units";
      throw new UnitsError(
        `${what}. It is for programs that npm has installed; a package installs its own units`,
      );
    }
    const daemon = join(packageFolder, "bin/blksnapd.mjs");
    const control = findProgram("blksnapctl", searchPath);
    const helper = (name: string): [string, string] => [
      `/usr/lib/blksnap/${name}`,
      `${HELPER_FOLDER}/${name}`,
    ];
    const commands: readonly (readonly [from: string, to: string])[] = [
      ["/usr/bin/blksnapd", `${node} ${daemon}`],
      ["/usr/bin/blksnapctl", `${node} ${control}`],
      helper("boot-front"),
      helper("has-programs"),
    ];
    const inPlace = (text: string): string =>
      commands.reduce(
        (so, [from, to]) => so.replace(new RegExp(`${from}(?=\\s)`, "g"), () => to),
        text,
      );
    // The generator orders the mounts of these before the units that start them, and lets none of the mounts wait.
    const needed = [
      ...new Set([node, daemon, control, `${HELPER_FOLDER}/boot-front`].map(dirname)),
    ];
    if (needed.some((path) => /[^\w/.@+:-]/.test(path))) {
      const what = `a path of the programs needs quoting: ${needed.join(", ")}`;
      throw new UnitsError(`${what}. Install them elsewhere`);
    }
    const hidden = needed.find((path) => /^\/(root|home|run\/user)(\/|$)/.test(path));
    if (hidden !== undefined) {
      const what = `a unit cannot access ${hidden}, which belongs to one user`;
      throw new UnitsError(
        `${what}. Install Node below /usr/local or /opt, and with it blksnapd and blksnapctl`,
      );
    }
    const unit = (text: string): string =>
      inPlace(text)
        .replace(/^ConditionPathExists=.*$/gm, oneEach)
        .replace(/^RequiresMountsFor=.*$/m, (line) => `${line} ${needed.join(" ")}`);
    const generator = (text: string): string =>
      text
        .replace(/^needed="/m, () => `needed="${needed.join(" ")} `)
        .replace(/^helpers=.*$/m, `helpers=${HELPER_FOLDER}`);
    return [
      ...this.#folder("systemd", "etc/systemd/system", unit),
      ...this.#folder("system-generators", "etc/systemd/system-generators", generator, 0o755),
      ...this.#folder("udev", "etc/udev/rules.d"),
      ...this.#folder("tmpfiles", "etc/tmpfiles.d"),
      ...this.#folder("libexec", HELPER_FOLDER.slice(1), inPlace, 0o755),
    ];
  }

  #folder(from: string, to: string, change = (text: string) => text, mode = 0o644): UnitFile[] {
    const folder = join(this.#surroundings.packageFolder, from);
    return readdirSync(folder).map((name) => ({
      path: `${this.#root}/${to}/${name}`,
      text: marked(change(readFileSync(join(folder, name), "utf8"))),
      mode,
    }));
  }

  /** Existing files with the mark, also of an earlier version. */
  installed(): string[] {
    const folders = [
      "etc/systemd/system",
      "etc/systemd/system-generators",
      "etc/udev/rules.d",
    ].concat("etc/tmpfiles.d", HELPER_FOLDER.slice(1));
    return folders.flatMap((folder) => {
      const path = `${this.#root}/${folder}`;
      if (!existsSync(path)) return [];
      return readdirSync(path, { withFileTypes: true })
        .filter(
          (entry) =>
            entry.isFile() && /blksnap|^(boot-front|end-front|has-programs)$/.test(entry.name),
        )
        .map(({ name }) => `${path}/${name}`)
        .filter(isOurs);
    });
  }

  /** The units that systemd starts by itself. */
  enabled(): string[] {
    const folder = `${this.#root}/etc/systemd/system`;
    if (!existsSync(folder)) return [];
    return readdirSync(folder)
      .filter((name) => /\.(wants|requires)$/.test(name))
      .flatMap((name) => readdirSync(join(folder, name)))
      .filter(
        (name) => [SERVICE, ...SOCKETS].includes(name) || /^blksnap-attach@.*\.service$/.test(name),
      );
  }

  /** Existing fronts and images, served or not. */
  devices(): string[] {
    return ["fronts", "images"].flatMap((kind) => {
      const folder = `${this.#root}/run/blksnap-udev/${kind}`;
      if (!existsSync(folder)) return [];
      return readdirSync(folder).filter((name) =>
        existsSync(`${this.#root}/sys/class/block/${name}`),
      );
    });
  }
}

/** @returns what was written, a line each, and the next steps. @throws UnitsError */
export function installUnits(surroundings: UnitsSurroundings): string[] {
  requireRoot(surroundings, "--install-units");
  const { root = "" } = surroundings;
  const ofPackage = `${root}/usr/lib/systemd/system/${SERVICE}`;
  if (existsSync(ofPackage)) {
    throw new UnitsError(`${ofPackage} exists: a package has installed the units. Remove it first`);
  }
  if (!existsSync(`${root}/run/systemd/system`)) {
    throw new UnitsError(
      "systemd does not run here, and the units need it. Try blksnapd --supervise",
    );
  }
  const files = new UnitFiles(surroundings).all();
  for (const { path } of files) {
    if (!isFree(path) && !isOurs(path)) {
      throw new UnitsError(
        `${path} exists, and --install-units did not write it. Move it away first; nothing was written`,
      );
    }
  }
  for (const { path, text, mode } of files) writeAtOnce(path, text, mode);
  return [
    ...files.map(({ path }) => `wrote ${path}`),
    "next: systemctl daemon-reload && udevadm control --reload && systemctl enable --now blksnapd",
    "after an upgrade of Node or of blksnapd: blksnapd --install-units again",
  ];
}

function writeAtOnce(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  // On the same file system, in a folder that no other user can write and neither systemd nor udev reads.
  const folder = mkdtempSync(join(dirname(path), ".blksnap-draft-"));
  const draft = join(folder, "draft");
  try {
    writeFileSync(draft, text, { flag: "wx" });
    chmodSync(draft, mode);
    renameSync(draft, path);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function assertUnused(files: UnitFiles, { activeState }: UnitsSurroundings): void {
  const enabled = files.enabled();
  if (enabled.length > 0) {
    const commands = enabled.map((name) => `systemctl disable '${name}'`).join("; ");
    throw new UnitsError(`${enabled.join(", ")} is enabled. Try ${commands} first`);
  }
  const state = activeState(SERVICE);
  if (!STOPPED_STATES.includes(state)) {
    const what = `${SERVICE} is ${state}, and may serve devices`;
    throw new UnitsError(`${what}. Try blksnapctl daemon stop first`);
  }
  for (const socket of SOCKETS) {
    if (STOPPED_STATES.includes(activeState(socket))) continue;
    const what = `${socket} exists, and starts the daemon`;
    throw new UnitsError(`${what}. Try systemctl stop ${socket} first`);
  }
  // Nothing would start the daemon that their users wait for.
  const devices = files.devices();
  if (devices.length > 0) {
    const what = `${devices.join(", ")} of blksnap exists, and waits for a daemon`;
    throw new UnitsError(`${what}. Try systemctl start blksnapd, then blksnapctl daemon stop`);
  }
}

/** @returns what was removed, a line each, and the next steps. @throws UnitsError */
export function uninstallUnits(surroundings: UnitsSurroundings): string[] {
  requireRoot(surroundings, "--uninstall-units");
  const files = new UnitFiles(surroundings);
  const installed = files.installed();
  if (installed.length === 0)
    throw new UnitsError("there are no units of --install-units here. See /etc/systemd/system");
  assertUnused(files, surroundings);
  for (const path of installed) rmSync(path);
  try {
    rmdirSync(`${surroundings.root ?? ""}${HELPER_FOLDER}`);
  } catch {
    // It contains other files, or was never created.
  }
  return [
    ...installed.map((path) => `removed ${path}`),
    "next: systemctl daemon-reload && udevadm control --reload",
  ];
}

/** @returns an ExitStatus */
export function changeUnits(isInstall: boolean): number {
  const surroundings: UnitsSurroundings = {
    packageFolder: dirname(dirname(realpathSync(process.argv[1] ?? ""))),
    node: process.execPath,
    searchPath: process.env["PATH"] ?? "",
    userId: process.geteuid?.() ?? -1,
    activeState: (unit) =>
      spawnSync("systemctl", ["is-active", unit], { encoding: "utf8" }).stdout?.trim() ?? "",
  };
  try {
    const lines = isInstall ? installUnits(surroundings) : uninstallUnits(surroundings);
    console.log(lines.join("\n"));
    return ExitStatus.ENDED;
  } catch (error) {
    complain((error as Error).message);
    return ExitStatus.FAILED;
  }
}
