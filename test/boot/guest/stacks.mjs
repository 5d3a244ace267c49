/**
 * The storage stacks that servers have, each with a mounted file system under "fio --verify" while its node is attached
 * live, snapshotted, compared and detached, repeatedly; then what administrators do to a volume, meanwhile.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { run, STACKS } from "./volumes.mjs";

const FILE_SYSTEMS = {
  ext4: {
    sizeMib: 96,
    make: ["mkfs.ext4", "-q", "-F"],
    grow: "resize2fs",
    options: "ro",
    check: ["e2fsck", "-fn"],
  },
  xfs: {
    // What mkfs asks for at least, with some room.
    sizeMib: 320,
    make: ["mkfs.xfs", "-q", "-f"],
    grow: "xfs_growfs",
    options: "ro,nouuid",
    check: ["xfs_repair", "-n"],
    isReplayed: true,
  },
};
const PAUSE_MS = 200;

/** After a kill the next daemon is waited for. */
const ctl = (...words) => run("blksnapctl", "--wait", ...words);
const json = (...words) => JSON.parse(ctl(...words, "--json"));
const sleep = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
/** Not loaded: each is asked for with words of its own. */
const has = (module) => spawnSync("modprobe", ["--dry-run", module]).status === 0;

/** Writes and verifies until it is stopped. */
class Checker {
  #folder;
  #child;
  #ended;

  constructor(name, folder) {
    this.#folder = `/run/checker-${name}`;
    run("mkdir", "-p", this.#folder);
    const words = [
      ...[
        "fio",
        "--name=verify",
        `--filename=${folder}/verified`,
        "--size=2M",
        "--rw=randwrite",
        "--bs=4k",
      ],
      ...[
        "--ioengine=psync",
        "--direct=1",
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--fsync=64",
      ],
    ];
    const loop =
      'n=0; while [ ! -e "$0/stop" ]; do n=$((n+1)); "$@" --randseed=$n > "$0/said" 2>&1 || exit 1; echo $n > "$0/new"; mv "$0/new" "$0/rounds"; done';
    this.#child = spawn("sh", ["-c", loop, this.#folder, ...words], { stdio: "ignore" });
    this.#ended = new Promise((resolve) => this.#child.on("exit", resolve));
  }

  get rounds() {
    try {
      return Number(readFileSync(join(this.#folder, "rounds"), "utf8"));
    } catch {
      return 0;
    }
  }

  /** Until it has written and verified all of its file once more, from its start. */
  async turn() {
    const before = this.rounds;
    while (this.rounds < before + 2) {
      if (this.#child.exitCode !== null)
        throw new Error(`fio: ${readFileSync(join(this.#folder, "said"), "utf8")}`);
      await sleep();
    }
  }

  async stop() {
    writeFileSync(join(this.#folder, "stop"), "");
    const status = await this.#ended;
    const said = status === 0 ? "" : readFileSync(join(this.#folder, "said"), "utf8");
    rmSync(this.#folder, { recursive: true });
    assert.equal(status, 0, `fio: ${said}`);
  }
}

const pidOfDaemon = () => json("status").daemon.pid;

/** Who is killed in a round: the daemon, its supervisor with it, or neither. */
const DEATHS = [
  () => process.kill(pidOfDaemon(), "SIGKILL"),
  () => {
    const supervisor = Number(run("systemctl", "show", "-P", "MainPID", "blksnapd.service"));
    for (const pid of [pidOfDaemon(), supervisor]) process.kill(pid, "SIGKILL");
  },
  () => undefined,
];

const sumOf = (path) => run("md5sum", path).split(" ")[0];
const identityOf = (path) =>
  `${run("dmsetup", "table", path)}${run("dmsetup", "info", "-c", "--noheadings", "-o", "name,uuid,major,minor", path)}${statSync(path).ino}`;

/** A stack with a mounted file system under a writer. */
class Used {
  constructor(name, type, { stack, needs = [] }) {
    this.name = name;
    this.type = type;
    this.stack = stack;
    this.needs = needs;
    this.kind = FILE_SYSTEMS[type];
    this.tracked = stack.tracked;
    const own = basename(stack.tracked);
    this.folder = `/mnt/${own}`;
    this.image = `/mnt/${own}-image`;
  }

  make() {
    this.stack.make(this.kind.sizeMib);
    run(...this.kind.make, this.stack.used);
    run("mkdir", "-p", this.folder, this.image);
    run("mount", this.stack.used, this.folder);
    this.#write("kept");
    this.kept = sumOf(`${this.folder}/kept`);
  }

  /** From now on it is under a writer. */
  check() {
    this.checker = new Checker(basename(this.folder), this.folder);
  }

  #write(file) {
    run(
      "dd",
      "if=/dev/urandom",
      `of=${this.folder}/${file}`,
      "bs=64k",
      "count=32",
      "conv=notrunc,fsync",
      "status=none",
    );
  }

  async round(number) {
    const before = identityOf(this.tracked);
    const said = ctl("attach", "--device", this.tracked);
    assert.match(said, /^front=\/dev\/ublkb\d+\nlive=\/dev\/mapper\/\S+$/m);
    this.stack.meanwhile?.(number);
    assert.equal(run("findmnt", "-no", "SOURCE", this.folder).trim(), realName(this.stack.used));
    await this.compare(DEATHS[number % DEATHS.length]);
    ctl("detach", "--device", this.tracked);
    assert.equal(identityOf(this.tracked), before);
  }

  /**
   * A snapshot under writes: its image equals the content at the take, and stays so.
   * @param meanwhile what happens while it is written to, and the image is there
   */
  async compare(meanwhile = () => undefined) {
    this.#write("stamped");
    const stamped = sumOf(`${this.folder}/stamped`);
    const id = ctl(
      "snapshot_create",
      "--device",
      this.tracked,
      "--file",
      "/var/tmp",
      "--limit",
      "512M",
    ).trim();
    const [, image] = /^image=(\S+)$/m.exec(ctl("snapshot_take", "--id", id));
    this.#write("stamped");
    const frozen = sumOf(image);
    meanwhile();
    await this.checker.turn();
    assert.equal(sumOf(image), frozen, "the image changes");
    const view = this.stack.view(image, this.kind.isReplayed === true);
    run("mount", "-o", this.kind.options, view, this.image);
    const sums = ["kept", "stamped"].map((file) => sumOf(`${this.image}/${file}`));
    run("umount", this.image);
    run(...this.kind.check, view);
    this.stack.close();
    assert.deepEqual(sums, [this.kept, stamped]);
    ctl("snapshot_destroy", "--id", id);
  }

  async end() {
    await this.checker.stop();
    run("umount", this.folder);
    run(...this.kind.check, this.stack.used);
    run("mount", this.stack.used, this.folder);
    assert.equal(sumOf(`${this.folder}/kept`), this.kept);
    run("umount", this.folder);
    this.stack.remove();
  }
}

/** As findmnt names it. */
function realName(path) {
  const number = realpathSync(path).slice("/dev/".length);
  return `/dev/mapper/${readFileSync(`/sys/block/${number}/dm/name`, "utf8").trim()}`;
}

async function rounds(name, type, entry, count) {
  const used = new Used(name, type, entry);
  used.make();
  used.check();
  for (let number = 0; number < count; number++) await used.round(number);
  await used.end();
}

/** @returns {string[]} those that the kernel does not have */
const missing = ({ needs = [] }) => needs.filter((module) => !has(module));

/** Also prints to the console, which shows how far a machine came that hung. */
async function noted(results, name, work) {
  const result = { name };
  try {
    await work();
  } catch (error) {
    result.error = String(error.stack);
  }
  results.push(result);
  writeFileSync("/dev/console", `${JSON.stringify(result)}\n`);
}

/** The daemon's words of each exchange of tables, in ms. */
function pauses() {
  const log = run("journalctl", "-b", "-u", "blksnapd", "-o", "cat", "--no-pager");
  return [...log.matchAll(/withoutIoMs"?[=:]\s?(\d+)/g)].map(([, ms]) => Number(ms));
}

export { Checker, ctl, json, missing, noted, pauses, sleep, sumOf, Used };

/** A group without volumes, whatever an earlier boot has left of it. */
export function makeGroup(disks) {
  spawnSync("vgremove", ["--force", "--force", "--yes", "st"]);
  run("vgcreate", "st", ...disks);
}

/**
 * @param {number} count rounds of each
 * @param {RegExp} wanted names of stacks, each followed by a comma and the file system
 */
export async function stacks(disks, count, wanted) {
  makeGroup(disks);
  const results = [];
  for (const [name, entry] of Object.entries(STACKS)) {
    const types = Object.keys(FILE_SYSTEMS).filter((type) => wanted.test(`${name}, ${type}`));
    if (types.length === 0) continue;
    const lacks = missing(entry);
    if (lacks.length > 0) results.push({ name, lacks });
    else {
      for (const type of types) {
        await noted(results, `${name}, ${type}, ${count} rounds`, () =>
          rounds(name, type, entry, count),
        );
      }
    }
  }
  return { results, pauses: pauses() };
}
