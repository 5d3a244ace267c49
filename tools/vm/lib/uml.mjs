/**
 * User Mode Linux: a kernel that is a process, with ublk, at native speed.
 *
 * Its root is this machine's file tree (hostfs). Output and control go through files of the run's folder, which the
 * guest appends to and this process reads.
 */
import { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import {
  accessSync,
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { cacheFolder, REPOSITORY } from "./cache.mjs";
import { commandScript, foldersToKeep, shellQuote } from "./guest.mjs";
import { findProgram, isStaticProgram, requireProgram, VmError } from "./host.mjs";

const MODULES = ["loop", "ublk_drv"];
const POLL_MS = 20;
const CHUNK_BYTES = 64 << 10;
/** Number of the file descriptor that is the caller's own output, for --shell. */
const TERMINAL_FD = 3;

/** Makes the host's tree read-only for the kernel, except its memory and two folders, because guests can mount /. */
const READ_ONLY_SCRIPT = `
run=$1 share=$2; shift 2
for folder in "$run" "$share"; do mount --bind "$folder" "$folder" || exit 125; done
while read -r _ point type _; do
  case "$type:$point" in proc:*|sysfs:*|cgroup*|dev*:*|*:/dev/shm|*:"$run"|*:"$share") continue ;; esac
  mount -o remount,bind,ro "$point" 2>/dev/null
done < /proc/self/mounts
exec "$@"`;

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** @returns {{release: string, image: string, modulesFolder: string}} the kernel, which is never fetched */
export function umlKernel() {
  const given = process.env.BLKSNAP_UML;
  const folder = given ? resolve(given) : join(cacheFolder(), "uml");
  const image = join(folder, "linux");
  const modulesFolder = [join(folder, "modules"), join(folder, "root/lib/modules")].find((path) =>
    existsSync(path),
  );
  const release = modulesFolder && readdirSync(modulesFolder)[0];
  if (isExecutable(image) && release) {
    return { release, image, modulesFolder: realpathSync(modulesFolder) };
  }
  throw new VmError(
    `no kernel of User Mode Linux in ${folder}: it needs the program "linux" and "modules/RELEASE"; ` +
      "$BLKSNAP_UML names another folder (tools/vm/README.md)",
  );
}

/** What is appended to a file, as it comes. */
class FileTail extends EventEmitter {
  #fd;
  #buffer = Buffer.alloc(CHUNK_BYTES);
  #timer = setInterval(() => this.drain(), POLL_MS);

  constructor(path) {
    super();
    this.#fd = openSync(path, "a+");
  }

  drain() {
    for (;;) {
      const count = readSync(this.#fd, this.#buffer, 0, CHUNK_BYTES, null);
      if (count === 0) return;
      this.emit("data", Buffer.from(this.#buffer.subarray(0, count)));
    }
  }

  end() {
    clearInterval(this.#timer);
    this.drain();
    closeSync(this.#fd);
  }
}

/** @returns {string} the program that the kernel starts, with what it needs beside it */
function fillRunFolder({ kernel, command, cwd, env, shareDir, shell, runFolder }) {
  const busybox = requireProgram("busybox", "busybox-static");
  if (!isStaticProgram(busybox)) {
    throw new VmError(
      `${busybox} needs libraries; Debian's package busybox-static has one without`,
    );
  }
  const settings = {
    VM_SHARE: shareDir,
    VM_MODULES: MODULES.join(" "),
    VM_MODULES_DIR: kernel.modulesFolder,
    VM_SHELL: shell ? "1" : "",
  };
  const kept = foldersToKeep([REPOSITORY, cwd, kernel.modulesFolder]);
  const script = (name) => readFileSync(new URL(`../guest/${name}`, import.meta.url), "utf8");
  const files = {
    "uml-main.sh": script("uml-main.sh"),
    "command.sh": commandScript({ command, cwd, env, shareDir }),
    "run.conf": Object.entries(settings)
      .map(([name, value]) => `${name}=${shellQuote(value)}\n`)
      .join(""),
    "keep.list": kept.map((path) => `${path}\n`).join(""),
    init: `#!${runFolder}/busybox sh\nrun=${shellQuote(runFolder)}\n${script("uml.sh")}`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(runFolder, name), text);
  copyFileSync(busybox, join(runFolder, "busybox"));
  mkdirSync(join(runFolder, "channels"));
  const init = join(runFolder, "init");
  chmodSync(init, 0o755);
  return init;
}

function umlArguments({ kernel, memoryMib, cpus, verbose, shell, runFolder }, init) {
  return [
    kernel.image,
    ...[`mem=${memoryMib}M`, `ncpus=${cpus}`, "seccomp=auto", `uml_dir=${runFolder}/`],
    ...["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", `init=${init}`],
    ...["con=null", "con0=null,fd:1", "ssl=null", "panic=-1", "oops=panic"],
    verbose ? "loglevel=7" : "loglevel=4",
    ...(shell ? [`con1=fd:0,fd:${TERMINAL_FD}`] : []),
  ];
}

/**
 * @param {object} options of runInVm, with `kernel` and `runFolder`
 * @returns as startQemu does
 */
export function startUml(options) {
  const { runFolder, shareDir, shell } = options;
  const init = fillRunFolder(options);
  const words = [
    // All of its processes end with this one, even if that is killed.
    ...["setpriv", "--pdeathsig", "KILL", findProgram("unshare"), "--pid", "--kill-child"],
    ...[
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-c",
      READ_ONLY_SCRIPT,
      "sh",
      runFolder,
      shareDir,
    ],
    ...umlArguments(options, init),
  ];
  const tails = Object.fromEntries(
    ["stdout", "stderr", "control"].map((name) => [
      name,
      new FileTail(join(runFolder, "channels", name)),
    ]),
  );
  const child = spawn(words[0], words.slice(1), {
    stdio: [shell ? "inherit" : "ignore", "pipe", "pipe", shell ? 1 : "ignore"],
    // The guest's memory is a file there.
    env: { ...process.env, TMPDIR: "/dev/shm" },
  });
  // Comes before "close", with which a run is over.
  child.once("exit", () => {
    for (const tail of Object.values(tails)) tail.end();
  });
  tails.control.write = () => writeFileSync(join(runFolder, "channels/stop"), "");
  return { child, channel: { ...tails, console: child.stdout } };
}
