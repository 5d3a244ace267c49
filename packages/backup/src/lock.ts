/**
 * Who may write a store. A lock is a file with a process in it, made with link(2), which also works over NFS. Exports of
 * different devices run beside each other; what removes chunks runs alone. Each side takes its own lock
 * first and looks at the other's then, so that of two that meet at least one gives up.
 *
 * A lock of a process of this boot that has ended is taken over: so a killed export is in nobody's way.
 */
import { randomUUID } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { BackupError } from "./errors.js";
import { type Files, realFiles } from "./files.js";

interface Holder {
  readonly token: string;
  readonly host: string;
  /** Hosts that share a store may have one name. */
  readonly machine: string;
  readonly boot: string;
  /** In which that number counts: containers may have one host name. */
  readonly namespace: string;
  readonly pid: number;
  /** When the process began, in ticks of this boot: numbers of processes come again. */
  readonly began: string;
  readonly what: string;
}

const SUFFIX = ".lock";
const ATTEMPTS_MAX = 5;

function readOr(path: string, other: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return other;
  }
}

function beganOf(pid: number): string {
  // The second field is in parentheses, and may have blanks in it.
  const fields = readOr(`/proc/${pid}/stat`, "").split(") ").at(-1)!.split(" ");
  return fields[19] ?? "";
}

function ownNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

const BOOT = "/proc/sys/kernel/random/boot_id";
const MACHINE = "/etc/machine-id";

function holderNow(what: string): Holder {
  const { pid } = process;
  const boot = readOr(BOOT, "");
  const machine = readOr(MACHINE, "");
  const place = { host: hostname(), machine, boot, namespace: ownNamespace() };
  return { token: randomUUID(), ...place, pid, began: beganOf(pid), what };
}

function parseHolder(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Holder | null;
    return typeof holder?.token === "string" ? holder : undefined;
  } catch {
    return undefined;
  }
}

/** Of another host nobody can know. */
function isGone({ host, machine, boot, namespace, pid, began }: Holder): boolean {
  if (host !== hostname() || machine !== readOr(MACHINE, "")) return false;
  if (boot !== readOr(BOOT, "")) return true;
  return namespace === ownNamespace() && beganOf(pid) !== began;
}

function busy(path: string, holder: Holder | undefined): BackupError {
  if (holder === undefined) {
    const hint = "Remove it, if no export runs";
    return new BackupError("BACKUP_BUSY", `the lock ${path} is not readable`, { hint });
  }
  const { what, pid, host } = holder;
  const hint = `Wait until it has ended; if ${host} is gone, remove ${path}`;
  const text = `${what} by process ${pid} on ${host} is under way there`;
  return new BackupError("BACKUP_BUSY", text, { hint });
}

export class StoreLock {
  readonly path: string;
  readonly #files: Files;
  readonly #text: string;

  private constructor(files: Files, path: string, text: string) {
    this.#files = files;
    this.path = path;
    this.#text = text;
  }

  /**
   * @param name of the lock, of letters, digits and dashes
   * @param what for messages: "export of /dev/sdb"
   * @param excludes says of the names of other locks which of them must not be held
   * @throws BackupError BACKUP_BUSY
   */
  static async take(
    files: Files,
    folder: string,
    name: string,
    what: string,
    excludes: (other: string) => boolean,
  ): Promise<StoreLock> {
    const path = join(folder, `${name}${SUFFIX}`);
    const lock = new StoreLock(files, path, JSON.stringify(holderNow(what)));
    await lock.#take(folder);
    try {
      for (const file of await files.list(folder)) {
        const isOther = file.endsWith(SUFFIX) && file !== `${name}${SUFFIX}`;
        if (!isOther || !excludes(file.slice(0, -SUFFIX.length))) continue;
        const holder = await lock.#holderAt(join(folder, file));
        if (holder !== "none" && holder !== "gone") throw busy(join(folder, file), holder);
      }
    } catch (error) {
      await lock.release();
      throw error;
    }
    return lock;
  }

  /** Before what cannot be undone: fails where somebody has removed the lock. */
  async check(): Promise<void> {
    const text = (await this.#files.read(this.path))?.toString();
    if (text !== this.#text) {
      const hint = "Run it again when nothing else writes there";
      throw new BackupError("BACKUP_BUSY", `the lock ${this.path} was taken away`, { hint });
    }
  }

  async release(): Promise<void> {
    const text = (await this.#files.read(this.path))?.toString();
    if (text === this.#text) await this.#files.remove(this.path);
  }

  async #take(folder: string): Promise<void> {
    const own = join(folder, `${randomUUID()}.new`);
    await this.#files.create(own, Buffer.from(this.#text));
    try {
      for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
        if (await this.#files.link(own, this.path)) return;
        const text = (await this.#files.read(this.path))?.toString();
        if (text === undefined) continue;
        const holder = parseHolder(text);
        if (holder === undefined || !isGone(holder)) throw busy(this.path, holder);
        await this.#putAside(folder, text);
      }
      throw busy(this.path, undefined);
    } finally {
      await this.#files.remove(own);
    }
  }

  /** Removes the lock with this text, and no other that has come in its place meanwhile. */
  async #putAside(folder: string, text: string): Promise<void> {
    const aside = join(folder, `${randomUUID()}.old`);
    await this.#files.rename(this.path, aside).catch(() => undefined);
    const moved = (await this.#files.read(aside))?.toString();
    if (moved !== undefined && moved !== text) await this.#files.link(aside, this.path);
    await this.#files.remove(aside);
  }

  async #holderAt(path: string): Promise<Holder | "none" | "gone" | undefined> {
    const text = (await this.#files.read(path))?.toString();
    if (text === undefined) return "none";
    const holder = parseHolder(text);
    return holder !== undefined && isGone(holder) ? "gone" : holder;
  }
}

/**
 * Runs `use` while nothing else writes the copy with this record.
 * @param what for messages: "an export to /backup/copy"
 * @throws BackupError BACKUP_BUSY
 */
export async function withTargetLock<Result>(
  record: string,
  what: string,
  use: () => Promise<Result>,
): Promise<Result> {
  const name = `.${basename(record)}`;
  const lock = await StoreLock.take(realFiles, dirname(record), name, what, () => false);
  try {
    return await use();
  } finally {
    await lock.release();
  }
}
