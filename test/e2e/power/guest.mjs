/**
 * The work of a booted machine: the steps of its script, one after the other. It reports each to the host in a line
 * of JSON on standard output; the host may cut the power at any moment.
 *
 *   node guest.mjs SCRIPT-AS-JSON
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { run, start } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { until } from "../lib/wait.mjs";

const STATE_MOUNT = "/mnt/state";
const STORE_MOUNT = "/mnt/store";
const MEMORY_STORE = "/tmp/store";
const FILES_MOUNT = "/mnt/files";
const SNAPSHOT_LIMIT_BYTES = 256 * 2 ** 20;
const PERSISTENT_DIRECTORY = `${STATE_MOUNT}/blksnap`;
const LOAD_LIMIT_S = 600;
const STUBS = "/tmp/stubs";

let daemon;
let fronts = {};

function tell(event, what = {}) {
  writeFileSync(1, `${JSON.stringify({ event, ...what })}\n`);
}

async function mounted(device, point, options = []) {
  mkdirSync(point, { recursive: true });
  await run(["mount", ...options, device, point]);
}

async function takeOf(devices) {
  mkdirSync(MEMORY_STORE, { recursive: true });
  const { id } = await daemon.client.snapshotCreate({
    devices,
    stores: [MEMORY_STORE],
    limitBytes: SNAPSHOT_LIMIT_BYTES,
  });
  tell("take begins");
  await daemon.client.snapshotTake(id);
  const infos = await Promise.all(devices.map((device) => daemon.client.cbtInfo(device)));
  const numbers = Object.fromEntries(
    devices.map((device, index) => [device, infos[index].changes_number]),
  );
  tell("taken", { numbers });
  await daemon.client.snapshotDestroy(id);
}

/** Where systemd records that it shuts the system down. */
function endOfSystem() {
  mkdirSync(STUBS, { recursive: true });
  const stub = join(STUBS, "systemctl");
  const script = `#!/bin/sh\n[ "$1" = list-jobs ] && echo 1 reboot.target start waiting || echo stopping\nexit 1\n`;
  writeFileSync(stub, script, { mode: 0o755 });
  return { PATH: `${STUBS}:${process.env.PATH}` };
}

async function hashesOf(id) {
  const { snapshots } = await daemon.client.status();
  const found = snapshots.find((snapshot) => snapshot.id === id);
  const hashes = {};
  for (const { device, image } of found?.devices ?? []) {
    if (image === null) continue;
    const [hash] = (await run(["sha256sum", image], { timeLimitMs: 600_000 })).split(" ");
    hashes[device] = hash;
  }
  return hashes;
}

const STEPS = {
  format: ({ device, type }) => run([`mkfs.${type}`, "-q", device]),
  mountState: ({ device, readOnly }) =>
    mounted(device, STATE_MOUNT, readOnly ? ["-o", "ro,noload"] : []),
  mountStore: ({ device }) => mounted(device, STORE_MOUNT),
  unmount: ({ point }) => run(["umount", point]),

  /**
   * @param {{persistentDirectory?: string, trusts?: boolean, closes?: boolean}} how trusts: nothing else
   * writes between two boots; closes: its stop is the system's end
   */
  async startDaemon({ persistentDirectory = PERSISTENT_DIRECTORY, trusts, closes }) {
    const args = ["--persistent-dir", persistentDirectory, "--tracking-block-minimum-shift", "12"];
    if (trusts) args.push("--trust-reboots");
    if (closes) args.push("--stops-last");
    daemon = await Daemon.start({ args, env: closes ? endOfSystem() : {} });
  },

  async stopDaemon() {
    daemon.kill("SIGTERM");
    const { status } = await daemon.ended();
    tell("daemon ended", { status, log: daemon.log() });
  },

  async attach({ device, persistent = true }) {
    try {
      const attached = await daemon.client.attach(device, { persistent });
      tell("attached", { device, persistent: attached.persistent });
    } catch (error) {
      tell("refused", { device, code: error.code, message: error.message });
    }
  },

  async detach({ device }) {
    await daemon.client.detach(device);
  },

  /** What the daemon says about its trackers. */
  async look() {
    const { trackers, snapshots } = await daemon.client.status();
    fronts = Object.fromEntries(trackers.map(({ device, front }) => [device, front]));
    const told = trackers.map(({ device, front, cbt, persistence }) => ({
      device,
      front,
      generation: cbt.generation_id,
      reason: cbt.generation_reason,
      number: cbt.changes_number,
      persistence,
    }));
    tell("look", { trackers: told, snapshots: snapshots.map(({ id }) => id), log: daemon.log() });
  },

  take: ({ devices }) => takeOf(devices),

  async diff({ device, since }) {
    const { ranges, changes_number: number } = await daemon.client.diff(device, since);
    tell("diff", { device, since, number, ranges });
  },

  /** The file system on a front, after the replay of its own journal by a mount. */
  async checkFiles({ device }) {
    const front = fronts[device];
    await mounted(front, FILES_MOUNT);
    await run(["umount", FILES_MOUNT]);
    await run(["e2fsck", "-f", "-n", front]);
    tell("files are clean", { device });
  },

  /** Random writes, or a pass in sequence, past the page cache, with a flush now and then. */
  load({ device, pattern, blocks }) {
    const words = [
      ...["fio", "--name=load", `--filename=${fronts[device]}`, `--rw=${pattern}`, "--direct=1"],
      ...["--ioengine=io_uring", `--bsrange=${blocks}`, "--iodepth=8", "--fsync=24"],
      ...["--time_based", `--runtime=${LOAD_LIMIT_S}`, "--norandommap", "--randrepeat=0"],
    ];
    start(words, { timeLimitMs: LOAD_LIMIT_S * 1000 });
    tell("load");
  },

  /** Mounts a front, and waits until that is on record. */
  async mountFiles({ device }) {
    await mounted(fronts[device], FILES_MOUNT);
    const isRecorded = (name) => {
      try {
        const text = readFileSync(join(PERSISTENT_DIRECTORY, name), "utf8");
        return name.startsWith("tracker-") && text.includes('\\"needsRecovery\\":true');
      } catch {
        // Its new version has taken its place since the names were read.
        return false;
      }
    };
    await until("the mount is on record", () => readdirSync(PERSISTENT_DIRECTORY).some(isRecorded));
  },

  async loadFiles({ device }) {
    await mounted(fronts[device], FILES_MOUNT);
    const words = [
      ...["fio", "--name=files", `--directory=${FILES_MOUNT}`, "--rw=randwrite", "--size=4m"],
      ...["--nrfiles=32", "--bs=4k", "--fsync=8", "--ioengine=psync", "--time_based"],
      ...[`--runtime=${LOAD_LIMIT_S}`],
    ];
    start(words, { timeLimitMs: LOAD_LIMIT_S * 1000 });
    tell("load");
  },

  /** Takes, and marks by hand, which each make a new journal, until the power is cut. */
  async goOn({ devices, takes }) {
    for (let round = 0; ; round++) {
      await sleep(300);
      if (takes && round % 3 === 2) await takeOf(devices);
      const range = { offset_bytes: (round * 4096) % (4096 * 512), length_bytes: 4096 };
      for (const device of devices) {
        await daemon.client.markDirty(device, [range]);
        tell("marked", {
          device,
          offsetBytes: range.offset_bytes,
          lengthBytes: range.length_bytes,
        });
      }
    }
  },

  async takePersistent({ devices }) {
    const { id } = await daemon.client.snapshotCreate({
      devices,
      stores: [STORE_MOUNT],
      limitBytes: SNAPSHOT_LIMIT_BYTES,
      persistent: true,
    });
    tell("take begins");
    await daemon.client.snapshotTake(id);
    const infos = await Promise.all(devices.map((device) => daemon.client.cbtInfo(device)));
    const numbers = Object.fromEntries(
      devices.map((device, index) => [device, infos[index].changes_number]),
    );
    tell("taken", { numbers });
    tell("frozen", { id, hashes: await hashesOf(id) });
  },

  async checkSnapshot({ id }) {
    tell("found", { id, hashes: await hashesOf(id), log: daemon.log() });
    await daemon.client.snapshotDestroy(id);
  },

  async run({ words }) {
    tell("ran", { output: await run(words) });
  },

  /** Changes one byte of each file of the state directory with such a name. */
  damage({ name, at }) {
    for (const file of readdirSync(PERSISTENT_DIRECTORY)) {
      if (!file.startsWith(name)) continue;
      const path = join(PERSISTENT_DIRECTORY, file);
      const bytes = readFileSync(path);
      bytes[at] ^= 0x40;
      writeFileSync(path, bytes, { flush: true });
    }
  },
};

try {
  for (const { step, ...what } of JSON.parse(process.argv[2])) {
    tell("step", { step });
    await STEPS[step](what);
  }
  await run(["sync"]);
  tell("done");
} catch (error) {
  tell("failed", { message: `${error.stack ?? error}`, log: daemon?.log() });
}
// fio may still run; the host ends the machine.
process.exit(0);
