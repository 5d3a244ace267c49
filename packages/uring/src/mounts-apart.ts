/**
 * File systems in all mount namespaces: those of containers, and those that no longer have a name.
 *
 * ```
 *   namespaces of all processes ──mountinfo──▶ mountsInHelper(): which file systems there are
 *               │                                       │ their numbers
 *               │ a mount of any of them                ▼
 *               ├─ what lies over it taken away ─▶ ReachedFileSystems.open(): a descriptor of each
 *               └─ else what a process has open
 * ```
 *
 * A separate process does that: it enters the namespaces, may hang at a dead server, and there may be thousands of
 * namespaces.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { apartProgram, leave, processFailed, runAlone } from "./apart-process.js";

/** The program observes its own limit, unless a call hangs. */
const SPARE_MS = 1000;
const PARTIAL = "partial";

export interface MountsOfAll {
  /** Of each file system one: its line of mountinfo (one character per byte), and a process that sees it. */
  readonly mounts: readonly { readonly pid: number; readonly line: string }[];
  /** False: the time ended before all namespaces were seen. */
  readonly isComplete: boolean;
}

/**
 * The file systems with a block device of their own that any process has mounted, the ones that process 1
 * has first.
 * @param types of file systems to list even if their number is no block device's
 * @throws UringError PROCESS_FAILED
 */
export async function mountsInHelper(
  types: readonly string[],
  timeoutMs: number,
): Promise<MountsOfAll> {
  const words = ["mounts", String(Math.floor(timeoutMs)), ...types];
  const [first, ...lines] = await runAlone(words, timeoutMs + SPARE_MS, "latin1");
  const isComplete = Number(first) >= 0 && lines.at(-1) !== PARTIAL;
  const mounts = lines
    .filter((line) => line !== PARTIAL && line !== "")
    .map((line) => {
      const blank = line.indexOf(" ");
      return { pid: Number(line.slice(0, blank)), line: line.slice(blank + 1) };
    });
  return { mounts, isComplete };
}

export interface ReachedFileSystem {
  /** Leads to a directory or a regular file of it until release(); absent if it cannot be reached. */
  readonly path: string | undefined;
  /** The process by whose namespace or descriptor it was reached. */
  readonly pid: number;
  /** The mount point in that namespace as mountinfo has it, the descriptor in /proc, or why there is none. */
  readonly place: string;
}

/** Open file systems. */
export class ReachedFileSystems {
  readonly #child: ChildProcess;
  readonly #found: ReadonlyMap<string, ReachedFileSystem>;

  private constructor(child: ChildProcess, found: ReadonlyMap<string, ReachedFileSystem>) {
    this.#child = child;
    this.#found = found;
  }

  /**
   * @param devices "major:minor" of file systems
   * @throws UringError PROCESS_FAILED
   */
  static async open(devices: readonly string[], timeoutMs: number): Promise<ReachedFileSystems> {
    const words = [String(process.pid), "reach", String(Math.floor(timeoutMs)), ...devices];
    const child = spawn(apartProgram, words, { stdio: ["pipe", "pipe", "ignore"], cwd: "/" });
    child.stdin.on("error", () => {});
    const text = await untilEnd(child, timeoutMs + SPARE_MS);
    const found = new Map<string, ReachedFileSystem>();
    for (const line of text.split("\n")) {
      const [, device, fd, pid, place] = /^(\d+:\d+) (-?\d+) (\d+) (.*)$/.exec(line) ?? [];
      if (device === undefined) continue;
      const path = Number(fd) < 0 ? undefined : `/proc/${child.pid}/fd/${fd}`;
      found.set(device, { path, pid: Number(pid), place: place ?? "" });
    }
    return new ReachedFileSystems(child, found);
  }

  get(device: string): ReachedFileSystem {
    const none = { path: undefined, pid: 0, place: "the search for it did not end in time" };
    return this.#found.get(device) ?? none;
  }

  release(): void {
    leave(this.#child);
  }
}

/** The program's output up to its last line, or in time. */
function untilEnd(child: ChildProcess, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const finish = () => {
      clearTimeout(timer);
      resolve(text);
    };
    const timer = setTimeout(finish, timeoutMs);
    child.stdout?.setEncoding("latin1").on("data", (part: string) => {
      text += part;
      if (/(^|\n)end\n$/.test(text)) finish();
    });
    child.on("close", finish);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(processFailed(error));
    });
  });
}
