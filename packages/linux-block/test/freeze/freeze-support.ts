/** Fake mounted file systems, and an fsfreeze that only records its calls. */
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type FreezeSystem, parseMountinfo } from "@blksnap/linux-block";
import { apartProgram } from "@blksnap/uring";

const WAIT_LIMIT_MS = 200_000;

/** Directories are identified by their inodes: tests use the worst names. */
const FAKE_FSFREEZE = `#!/bin/sh
inode=$(stat -L -c %i "$2")
echo "$1 $inode" >>"$FAKE_FSFREEZE/calls"
while [ "$1" = --freeze ] && [ -e "$FAKE_FSFREEZE/hang-$inode" ]; do sleep 0.05; done
if [ -e "$FAKE_FSFREEZE/fail$1-$inode" ]; then
  echo "fsfreeze: $2: failed: $(cat "$FAKE_FSFREEZE/fail$1-$inode")" >&2
  exit 1
fi
echo "$1 $inode" >>"$FAKE_FSFREEZE/done"
`;

/** Of the guard's clocks: see FreezeFixture.setClock. */
const FAKE_SLEEP = `#!/bin/sh
case $1 in
  0.*) exec /bin/sleep "$1" ;;
  [0124]) clock=pause ;;
  *) clock=limit ;;
esac
while [ -e "$FAKE_FSFREEZE/stands-$clock" ]; do /bin/sleep 0.05; done
[ -e "$FAKE_FSFREEZE/over-$clock" ] && exec /bin/sleep 0.02
exec /bin/sleep "$1"
`;

export interface FakeFileSystem {
  readonly inode: number;
  readonly path: Buffer;
  readonly device: string;
}

export class FreezeFixture {
  readonly folder = mkdtempSync(join(tmpdir(), "blksnap-freeze-"));
  readonly fileSystems: FakeFileSystem[] = [];
  /** Syncs, and the file systems that were frozen then. */
  readonly synced: { readonly index: number; readonly frozen: readonly number[] }[] = [];
  /** Results of the next syncs of a file system. */
  readonly syncStatus: Map<number, number[]> = new Map();
  readonly #path = process.env["PATH"];

  constructor() {
    // The real fsfreeze would freeze the file system of the test's folder.
    if (realpathSync("/bin/sh").endsWith("busybox")) throw new Error("/bin/sh is busybox");
    const bin = join(this.folder, "bin");
    mkdirSync(bin);
    for (const [name, text] of Object.entries({ fsfreeze: FAKE_FSFREEZE, sleep: FAKE_SLEEP })) {
      writeFileSync(join(bin, name), text);
      chmodSync(join(bin, name), 0o755);
    }
    process.env["PATH"] = `${bin}:${this.#path}`;
    process.env["FAKE_FSFREEZE"] = this.folder;
    this.setClock("pause", "stands");
  }

  /**
   * A guard's clock: "pause" is that of its patience with each thaw and of its pauses between tries, "limit" that of
   * its own end. A stopped clock makes the machine's speed irrelevant; an expired one ends the waits for it.
   */
  setClock(clock: "pause" | "limit", state: "runs" | "stands" | "over"): void {
    for (const name of ["over", "stands"] as const) {
      const path = join(this.folder, `${name}-${clock}`);
      if (name === state) writeFileSync(path, "");
      else rmSync(path, { force: true });
    }
  }

  /** Forgets the calls of fsfreeze. */
  forgetCalls(): void {
    for (const name of ["calls", "done"]) rmSync(join(this.folder, name), { force: true });
  }

  remove(): void {
    process.env["PATH"] = this.#path;
    rmSync(this.folder, { recursive: true });
  }

  /** Creates directories that stand for mounted file systems, the first mounted first. */
  add(...names: (string | Buffer)[]): FakeFileSystem[] {
    const added = names.map((name, index) => {
      const path = Buffer.concat([Buffer.from(`${this.folder}/`), Buffer.from(name)]);
      mkdirSync(path);
      const device = `250:${this.fileSystems.length + index}`;
      return { inode: statSync(path).ino, path, device };
    });
    this.fileSystems.push(...added);
    return added;
  }

  get devices(): string[] {
    return this.fileSystems.map(({ device }) => device);
  }

  get mountinfo(): string {
    const id = mountId(this.folder);
    return this.fileSystems
      .map(({ path, device }) => `${id} 1 ${device} / ${escaped(path)} rw - ext4 /dev/x rw\n`)
      .join("");
  }

  get system(): FreezeSystem {
    const system = systemOf(this.mountinfo);
    return {
      ...system,
      sync: async (paths, timeoutMs) => {
        const statuses = await system.sync(paths, timeoutMs);
        return paths.map((path, place) => {
          const index = this.fileSystems.findIndex(({ inode }) => inode === statSync(path).ino);
          this.synced.push({ index, frozen: this.#frozen() });
          return this.syncStatus.get(index)?.shift() ?? statuses[place] ?? 0;
        });
      },
    };
  }

  #frozen(): number[] {
    const frozen = this.calls().filter((call) => call.startsWith("--freeze"));
    return frozen.map((call) => Number(call.split(" ")[1]));
  }

  hang({ inode }: FakeFileSystem): void {
    writeFileSync(join(this.folder, `hang-${inode}`), "");
  }

  release({ inode }: FakeFileSystem): void {
    rmSync(join(this.folder, `hang-${inode}`));
  }

  fail(verb: "--freeze" | "--unfreeze", { inode }: FakeFileSystem, message: string): void {
    writeFileSync(join(this.folder, `fail${verb}-${inode}`), message);
  }

  /** Calls of fsfreeze so far: "--freeze 0" for the first file system. */
  calls(which: "calls" | "done" = "done"): string[] {
    const path = join(this.folder, which);
    if (!existsSync(path)) return [];
    return readFileSync(path, "utf8")
      .trim()
      .split("\n")
      .map((line) => {
        const [verb, inode] = line.split(" ");
        return `${verb} ${this.fileSystems.findIndex((one) => one.inode === Number(inode))}`;
      });
  }
}

/** Its mounts are directories that are reached by their names. */
export function systemOf(mountinfo: string): FreezeSystem {
  const readMounts = () => parseMountinfo(mountinfo);
  return {
    sysfs: "/nonexistent",
    freezeProgram: apartProgram,
    readMounts,
    deviceNumber: () => undefined,
    readElsewhere: async () => ({ mounts: [], loopFiles: new Map(), isComplete: true }),
    async reach(devices) {
      const fds = new Map<string, number>();
      for (const { device, mountPointBytes } of readMounts()) {
        if (devices.includes(device)) fds.set(device, openSync(mountPointBytes, "r"));
      }
      const place = (device: string) =>
        readMounts().find((mount) => mount.device === device)?.mountPointBytes;
      return {
        get: (device) => ({
          path: fds.has(device) ? `/proc/self/fd/${fds.get(device)}` : undefined,
          pid: 1,
          place: fds.has(device) ? escaped(place(device) as Buffer) : "it is a test",
        }),
        release: () => {
          for (const fd of fds.values()) closeSync(fd);
        },
      };
    },
    sync: async (paths) => paths.map(() => 0),
  };
}

/** Escapes names like mountinfo. */
function escaped(path: Buffer): string {
  return path
    .toString("latin1")
    .replace(/[ \t\n\\#]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

function mountId(path: string): number {
  const fd = openSync(path, "r");
  try {
    const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
    return Number(/^mnt_id:\s*(\d+)/m.exec(info)?.[1]);
  } finally {
    closeSync(fd);
  }
}

export async function until(what: string, ask: () => boolean): Promise<void> {
  const end = performance.now() + WAIT_LIMIT_MS;
  while (!ask()) {
    if (performance.now() > end) throw new Error(`waited in vain until ${what}`);
    await sleep(10);
  }
}

/** Processes of a session: a guard's with its children. */
export function sessionProcesses(session: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ");
        return fields?.[0] !== "Z" && Number(fields?.[3]) === session;
      } catch {
        return false;
      }
    })
    .map(Number);
}

/** None of one that has ended. */
function descriptors(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`);
  } catch {
    return [];
  }
}

/** Targets of a process's descriptors. */
export function openFiles(pid: number): string[] {
  return descriptors(pid).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

/** Guards that this process started and that still run. */
export function guards(parent: number = process.pid): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ");
        const words = readFileSync(`/proc/${pid}/cmdline`, "latin1");
        return Number(fields?.[1]) === parent && words.includes("freeze-guard");
      } catch {
        return false;
      }
    })
    .map(Number);
}
