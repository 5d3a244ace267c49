/** Reads Linux's files about the host; unreadable ones count as absent. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";

export class HostFiles {
  /** "" for the host itself; tests use another root. */
  readonly root: string;

  constructor(root = "") {
    this.root = root;
  }

  path(path: string): string {
    return join(this.root, path) || path;
  }

  exists(path: string): boolean {
    return existsSync(this.path(path));
  }

  text(path: string): string | undefined {
    try {
      return readFileSync(this.path(path), "latin1");
    } catch {
      return undefined;
    }
  }

  names(path: string): string[] {
    try {
      return readdirSync(this.path(path));
    } catch {
      return [];
    }
  }

  link(path: string): string | undefined {
    try {
      return readlinkSync(this.path(path));
    } catch {
      return undefined;
    }
  }
}

export type DaemonRole = "supervisor" | "daemon" | "freeze-guard";

/** A process of blksnap. */
export interface OwnProcess {
  readonly pid: number;
  readonly parent: number;
  readonly role: DaemonRole;
  readonly words: readonly string[];
}

/** All processes of blksnap except this one, by ascending pid. */
export function ownProcesses(host: HostFiles, exceptPid: number): OwnProcess[] {
  const pids = host.names("/proc").map(Number).filter(Number.isInteger);
  return pids
    .sort((a, b) => a - b)
    .flatMap((pid) => {
      const words = (host.text(`/proc/${pid}/cmdline`) ?? "").split("\0").slice(0, -1);
      const role = roleOf(words);
      const stat = host.text(`/proc/${pid}/stat`) ?? "";
      const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (role === undefined || pid === exceptPid || state === "Z") return [];
      return [{ pid, parent: Number(parent), role, words }];
    });
}

function roleOf(words: readonly string[]): DaemonRole | undefined {
  if (words[1] === "-c" && words[3] === "freeze-guard") return "freeze-guard";
  const isNode = basename(words[0] ?? "").startsWith("node");
  const script = words.slice(1).find((word) => !word.startsWith("-")) ?? "";
  if (!isNode || !["blksnapd", "blksnapd.mjs"].includes(basename(script))) return undefined;
  if (words.includes("--doctor")) return undefined;
  return words.includes("--supervise") ? "supervisor" : "daemon";
}

/** The daemon that owns a state directory: it has the lock file open. */
export function ownerOf(
  host: HostFiles,
  stateDirectory: string,
  processes: readonly OwnProcess[],
): OwnProcess | undefined {
  return processes.find(({ pid, role }) => {
    const folder = `/proc/${pid}/fd`;
    const opened = host.names(folder).map((fd) => host.link(`${folder}/${fd}`));
    return role === "daemon" && opened.includes(join(stateDirectory, "lock"));
  });
}

const UNIT_FOLDERS = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/** How a daemon is started on this host. */
export function startHint(host: HostFiles): string {
  const hasUnit = UNIT_FOLDERS.some((folder) => host.exists(`${folder}/blksnapd.service`));
  return `Start it: ${hasUnit ? "systemctl start blksnapd" : "blksnapd --supervise"}`;
}
