/**
 * The daemon is killed repeatedly at random moments, under verified load and with a snapshot: its users only see a
 * pause.
 *
 * KILLS=N in the environment kills N times (8, or 5 where the run is a sample); SEED gives the moments. It runs by
 * `npm run torture -- --kills N`.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { UblkControl, UblkState } from "@blksnap/ublk";
import * as assert from "uvu/assert";
import { assertCovered, changedBlocks } from "../lib/changes.mjs";
import { run } from "../lib/command.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { alignedBuffer, assertContent, DeviceFile, writeDevice } from "../lib/device-file.mjs";
import { lateDisk } from "../lib/device-mapper.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { endFio, startFio, VERIFIED_WRITES } from "../lib/fio.mjs";
import { assertInventory } from "../lib/inventory.mjs";
import { timeLimitMs } from "../lib/limits.mjs";
import { seededRandom } from "../lib/random.mjs";
import { note, progress, scenario } from "../lib/scenario.mjs";
import { MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { recoveryTimesMs, servingPid } from "../lib/successor.mjs";
import { until } from "../lib/wait.mjs";

const KILLS = Number(process.env.KILLS ?? (process.env.SAMPLE === undefined ? 8 : 5));
const SIZE_MIB = 32;
const CHURN_BYTES = 4 * MIB;
/** Of one of the disks, so that kills meet requests that it has not handled yet. */
const DELAY_MS = 3;
/**
 * Lengths of a life, from when its devices are served again, or its control API. In a short one hardly
 * any request of a client is begun; in a long one snapshots are taken and destroyed.
 */
const SHORT_LIFE_MAX_MS = 500;
const LONG_LIFE_MAX_MS = 3_000;
const LONG_ONE_IN = 4;
/** How many are not even waited for. */
const BLIND_ONE_IN = 4;
const RECOVERY_LIMIT_MS = 300_000;
const TEST_LIMIT_MS = timeLimitMs(1_500_000);
const LOAD = {
  ...VERIFIED_WRITES,
  verify_backlog: 64,
  runtime: TEST_LIMIT_MS / 1000,
  // The load is there to be right, not to take the processor from the daemons that start.
  rate_iops: 150,
};

/** What a client gets when the daemon dies during its request, or does not run. */
const UNANSWERED = ["DAEMON_NOT_RUNNING", "CONNECTION_LOST", "SOCKET_FAILED"];

const test = scenario(import.meta.url, { daemon: false });

/** The daemon that the supervisor has let serve last. */
function activePid(t) {
  const lines = t.daemon.log().matchAll(/"pid":(\d+),"msg":"active daemon"/g);
  return Number([...lines].at(-1)[1]);
}

/** Reports where a process that does not die waits; the kernel's log names blocked tasks. */
function showBlocked(pid) {
  writeFileSync("/proc/sysrq-trigger", "w");
  for (const thread of existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : []) {
    const read = (name) => readFileSync(`/proc/${pid}/task/${thread}/${name}`, "utf8").trim();
    console.log(`thread ${thread}: ${read("stat").split(" ").slice(1, 3)}\n${read("stack")}`);
  }
}

/** Kills, and measures what each death costs. */
class Killer {
  noticedMs = [];
  pausesMs = [];

  constructor(t, front, control, random) {
    Object.assign(this, { t, front, control, random, id: Number(/\d+$/.exec(front)[0]) });
  }

  /** @returns how many seconds it took */
  async killAll(images) {
    const startedMs = performance.now();
    for (let kill = 1; kill <= KILLS; kill++) {
      progress(`kill ${kill} of ${KILLS}: ${await this.killOnce()}`);
      // Checked at once: later kills would push out of the log what happened here.
      for (const image of images) assert.ok(existsSync(image), `kill ${kill}: ${image} is gone`);
    }
    return Math.round((performance.now() - startedMs) / 1000);
  }

  async killOnce() {
    const pid = activePid(this.t);
    const killedMs = performance.now();
    process.kill(pid, "SIGKILL");
    const noticing = this.#noticed(pid, killedMs);
    // Waited for below; a failure before that must not end the process.
    noticing.catch(() => undefined);
    await until("the next daemon has its turn", () => this.#other(pid), RECOVERY_LIMIT_MS);
    if (this.random.once(BLIND_ONE_IN)) {
      await noticing;
      await sleep(this.random.below(SHORT_LIFE_MAX_MS));
      return "not waited for";
    }
    const [noticedMs, pauseMs] = await Promise.all([noticing, this.#pause(killedMs)]);
    this.noticedMs.push(noticedMs);
    this.pausesMs.push(pauseMs);
    await this.#live();
    return `noticed by the kernel after ${noticedMs} ms, users waited ${pauseMs} ms`;
  }

  async #live() {
    if (!this.random.once(LONG_ONE_IN)) {
      await sleep(this.random.below(SHORT_LIFE_MAX_MS));
      return;
    }
    await until("the next daemon answers", () => servingPid(this.t), RECOVERY_LIMIT_MS);
    await sleep(this.random.below(LONG_LIFE_MAX_MS));
  }

  #other(pid) {
    const other = activePid(this.t);
    return other === pid ? undefined : other;
  }

  /** Until the kernel knows that the front has lost its server. */
  async #noticed(pid, sinceMs) {
    const hasNoticed = async () => {
      const { state, serverPid } = await this.control.deviceInfo(this.id);
      return state !== UblkState.LIVE || serverPid !== pid;
    };
    await until("the kernel notices", hasNoticed, RECOVERY_LIMIT_MS).catch((error) => {
      showBlocked(pid);
      throw error;
    });
    return Math.round(performance.now() - sinceMs);
  }

  /** How long a read waits that comes right after the kill. */
  async #pause(sinceMs) {
    const file = await DeviceFile.open(this.t, this.front, { readOnly: true });
    await file.readInto(alignedBuffer(4096), 0);
    await file.close();
    return Math.round(performance.now() - sinceMs);
  }
}

/** Takes and destroys snapshots of a device of its own all the while. */
class Churn {
  cycles = 0;
  #ended = false;
  #running;

  constructor(t, device, random) {
    Object.assign(this, { t, device, random });
    this.model = random.bytes(CHURN_BYTES);
  }

  start() {
    this.#running = this.#run();
    // Waited for in end(); a failure before that must not end the process.
    this.#running.catch(() => undefined);
    this.t.defer(() => this.end());
  }

  async end() {
    this.#ended = true;
    await this.#running;
  }

  /** Asks until a daemon answers. What was done before the answer was lost counts as done. */
  async #ask(work, ...done) {
    while (!this.#ended || done.length > 0) {
      try {
        return await work();
      } catch (error) {
        if (done.includes(error.code)) return undefined;
        if (!UNANSWERED.includes(error.code)) throw error;
      }
      await sleep(100);
    }
    return undefined;
  }

  async #run() {
    const { t, device } = this;
    await writeDevice(t, device, this.model);
    while (!this.#ended) {
      const front = (await this.#ask(() => t.client.attach(device)))?.front;
      if (front === undefined) return;
      await this.#cycle(front);
      this.cycles++;
    }
  }

  async #cycle(front) {
    const { t, device } = this;
    const stores = ["memory:"];
    const options = { devices: [device], stores, limitBytes: 8 * MIB };
    let mine = await this.#mine();
    if (mine === undefined) {
      await this.#ask(() => t.client.snapshotCreate(options), "DEVICE_IN_OTHER_SNAPSHOT");
      mine = await this.#mine();
    }
    if (mine === undefined) return;
    await this.#ask(() => t.client.snapshotTake(mine.id), "SNAPSHOT_ALREADY_TAKEN");
    const frozen = Buffer.from(this.model);
    const image = (await this.#mine())?.devices[0].image;
    const file = await DeviceFile.open(t, front);
    for (let piece = 0; piece < 16; piece++) {
      const buffer = alignedBuffer(8192);
      const offset = this.random.below((CHURN_BYTES - 8192) / 512) * 512;
      await file.write(this.random.fill(buffer), offset);
      buffer.copy(this.model, offset);
    }
    await file.close();
    if (image) await assertContent(t, image, frozen);
    await assertContent(t, front, this.model);
    await this.#ask(() => t.client.snapshotDestroy(mine.id), "SNAPSHOT_NOT_FOUND");
  }

  /** The snapshot of the device, if there is one. */
  async #mine() {
    const status = await this.#ask(() => this.t.client.status());
    return status?.snapshots.find(({ devices }) => devices[0]?.device === this.device);
  }
}

/**
 * What the kernel logs about an image that is being created when its daemon dies: the next one removes it while
 * its partition table is read.
 */
function readsOfOthers(devices) {
  const others = `(?!(?:${devices.map((path) => basename(path)).join("|")})\\b)ublkb\\d+`;
  return [
    new RegExp(`I/O error, dev ${others}, .*\\(READ\\)`),
    new RegExp(`Buffer I/O error on dev ${others}, .*read`),
  ];
}

function spread(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return `${sorted[0]} / ${sorted[Math.floor(sorted.length / 2)]} / ${sorted.at(-1)} ms`;
}

test(
  `killed ${KILLS} times under fio --verify, with a snapshot held`,
  async (t) => {
    const seed = process.env.SEED ?? String(Date.now());
    note(`SEED=${seed}`);
    const random = seededRandom(seed);
    const [below, formatted, churned] = await ramDisks(t, 3, SIZE_MIB * MIB);
    const raw = await lateDisk(t, below, SIZE_MIB * MIB, DELAY_MS);
    const stores = [storeFolder(t)];
    t.daemon = await Daemon.start({ args: ["--supervise", "--standbys", "2"] });
    const fronts = [];
    for (const device of [raw, formatted, churned])
      fronts.push((await t.client.attach(device)).front);
    const [front, ext4Front] = fronts;
    const [copy, later] = ["copy", "later"].map((name) => join(t.folder, name));
    t.defer(() => rmSync(copy, { force: true }));
    t.defer(() => rmSync(later, { force: true }));
    await run(["dd", "if=/dev/urandom", `of=${copy}`, "bs=1M", `count=${SIZE_MIB}`]);
    await run(["dd", `if=${copy}`, `of=${front}`, "bs=1M", "oflag=direct"]);
    await makeFileSystem("ext4", ext4Front);
    const files = await mount(t, ext4Front);
    await run(["sh", "-c", `cp -r /usr/include/linux/can ${files.path}/ && sync`]);
    const sums = `cd "$1" && find can -type f | sort | xargs md5sum`;
    const before = await run(["sh", "-c", sums, "sh", files.path]);
    const { destroy, images } = await takeSnapshot(t, [raw, formatted], { stores });
    t.expectKernelMessages(readsOfOthers([...fronts, ...images]));

    const limits = { timeLimitMs: TEST_LIMIT_MS };
    const writing = [
      startFio(t, front, LOAD, limits),
      startFio(
        t,
        join(files.path, "load"),
        { ...LOAD, size: "12m", allow_file_create: 1, rate_iops: 50 },
        limits,
      ),
    ];
    const churn = new Churn(t, churned, random);
    churn.start();
    await until("a snapshot was taken and destroyed", () => churn.cycles > 0, RECOVERY_LIMIT_MS);
    const control = await UblkControl.open();
    t.defer(() => control.close());
    const killer = new Killer(t, front, control, random);
    const tookS = await killer.killAll(images);
    for (const fio of writing) await endFio(fio);
    await churn.end();
    // Fronts are served before the control API listens: all of the above may end before that.
    await until("the last daemon answers", () => servingPid(t), RECOVERY_LIMIT_MS);
    note(`${KILLS} kills in ${tookS} s, beside them ${churn.cycles} snapshots taken and destroyed`);
    note(`kernel noticed after (min / median / max) ${spread(killer.noticedMs)}`);
    note(`daemon served after its turn came         ${spread(recoveryTimesMs(t.daemon))}`);
    note(`users waited                              ${spread(killer.pausesMs)}`);

    await run(["cmp", images[0], copy]);
    const image = await mountImage(t, "ext4", images[1], ["ro"]);
    assert.is(await run(["sh", "-c", sums, "sh", image.path]), before);
    await image.unmount();
    await checkFileSystem("ext4", images[1]);
    await assertInventory(t);
    await destroy();

    const second = await takeSnapshot(t, [raw, formatted], { stores });
    await run(["dd", `if=${second.images[0]}`, `of=${later}`, "bs=1M"]);
    const { ranges, block_bytes: blockBytes } = await t.client.diff(raw, 1);
    const changed = changedBlocks(readFileSync(copy), readFileSync(later), blockBytes);
    assert.ok(changed.length > 0, "nothing has changed");
    assertCovered(changed, ranges);
    await second.destroy();
    await files.unmount();
    await checkFileSystem("ext4", ext4Front);
    for (const { id } of await t.client.snapshotCollect()) await t.client.snapshotDestroy(id);
    for (const device of [raw, formatted, churned]) await t.client.detach(device);
    await t.daemon.stop();
  },
  { timeLimitMs: TEST_LIMIT_MS },
);

test.run();
