/** Stops and starts other than cuts under load: clean stops, writes by others, damage, a medium that fails. */
import assert from "node:assert/strict";
import { DISKS, TRACKED } from "./machine.mjs";
import {
  ATTACH,
  expectations,
  inspection,
  judge,
  MOUNT_MEDIA,
  noteGenerations,
  PREPARE,
  SERVE,
} from "./random-cuts.mjs";
import { compareDiff } from "./tracked.mjs";

const { raw, files, state, store } = DISKS;
const FRONT_OF_RAW = "/dev/blksnap/vda";
const STOP = [
  { step: "stopDaemon" },
  { step: "unmount", point: "/mnt/state" },
  { step: "unmount", point: "/mnt/store" },
];

function write(device, offsetMib, count = 1) {
  const words = ["dd", "if=/dev/urandom", `of=${device}`, "bs=4k", "oflag=direct"];
  return { step: "run", words: [...words, `seek=${offsetMib * 256}`, `count=${count}`] };
}

function looks(events) {
  return events.filter(({ event }) => event === "look");
}

function trackerIn(look, device) {
  return look.trackers.find((tracker) => tracker.device === device);
}

/** Formats, attaches, takes, writes a little, and ends in order. */
async function trackAndStop(machine) {
  const events = await machine.boot([
    ...PREPARE,
    ...SERVE,
    ...ATTACH,
    { step: "look" },
    { step: "take", devices: TRACKED },
    ...[3, 9, 21].map((offsetMib) => write(FRONT_OF_RAW, offsetMib, 5)),
    ...STOP,
  ]);
  assert.equal(events.find(({ event }) => event === "daemon ended").status, 0);
  noteGenerations(machine, events);
}

export const SCENARIOS = {
  "the judge sees a block that is missing, and one too many": async () => {
    const expected = { written: new Set([4, 7]), maybe: new Set([8]) };
    const ranges = (...blocks) =>
      blocks.map((block) => ({ offset_bytes: block * 4096, length_bytes: 4096 }));
    assert.equal(compareDiff(expected, ranges(4, 7), { exact: true }).problem, undefined);
    assert.equal(compareDiff(expected, ranges(4, 7, 8), { exact: true }).problem, undefined);
    assert.match(compareDiff(expected, ranges(4, 8)).problem, /1 written blocks are not/);
    assert.match(compareDiff(expected, ranges(4, 7, 9), { exact: true }).problem, /never written/);
    const all = [{ offset_bytes: 0, length_bytes: 4096 * 2000 }];
    assert.match(compareDiff(expected, all).problem, /never written/);
  },

  "a clean stop keeps the exact map; writes that bypass the front begin a new generation": async (
    machine,
  ) => {
    await trackAndStop(machine);
    const expected = expectations(machine);
    const mountAndTouch = [
      { step: "run", words: ["mount", files.path, "/mnt"] },
      { step: "run", words: ["touch", "/mnt/stranger"] },
      { step: "run", words: ["umount", "/mnt"] },
    ];
    const events = await machine.boot([
      ...SERVE,
      ...inspection(machine),
      ...STOP,
      ...mountAndTouch,
    ]);
    judge(machine, events, expected, { exact: true });
    // One is detected by the kernel's counters of this boot, the other by its content.
    const later = await machine.boot([
      ...MOUNT_MEDIA,
      write(raw.path, 17),
      { step: "startDaemon", trusts: true },
      { step: "look" },
      ...STOP,
    ]);
    const [look] = looks(later);
    for (const device of TRACKED) {
      const { generation, reason, number, persistence } = trackerIn(look, device);
      assert.notEqual(generation, machine.tracked[device].generation, device);
      assert.equal(reason, "foreign_write", device);
      assert.equal(number, 0, device);
      assert.match(persistence.why, /not tracked|before it was tracked/, device);
    }
  },

  "without the operator's guarantee, only what is proved continues": async (machine) => {
    const serve = [...MOUNT_MEDIA, { step: "startDaemon", closes: true }];
    const mounted = { step: "mountFiles", device: files.path };
    const first = await machine.boot([
      ...PREPARE,
      ...serve,
      ...ATTACH,
      { step: "look" },
      write(FRONT_OF_RAW, 3),
      mounted,
    ]);
    noteGenerations(machine, first);
    const trackerOf = (events, device) => trackerIn(looks(events)[0], device);
    const was = (device) => machine.tracked[device].generation;
    // The power was cut while the ext4 was mounted: its superblock says that nothing else has mounted it.
    const check = { step: "checkFiles", device: files.path };
    const cut = await machine.boot([...serve, { step: "look" }, check, ...STOP]);
    const rawCut = trackerOf(cut, raw.path);
    assert.notEqual(rawCut.generation, was(raw.path));
    assert.equal(rawCut.reason, "tracking_broken");
    assert.match(rawCut.persistence.why, /nothing proves that there were no writes/);
    assert.equal(trackerOf(cut, files.path).generation, was(files.path));
    noteGenerations(machine, cut);
    // Stopped with the system, but this machine has no counter of its boots.
    const stopped = await machine.boot([...serve, { step: "look" }, mounted]);
    assert.notEqual(trackerOf(stopped, raw.path).generation, was(raw.path));
    assert.match(trackerOf(stopped, raw.path).persistence.why, /no other system ran/);
    assert.equal(trackerOf(stopped, files.path).generation, was(files.path));
    // Cut again; a rescue system, without the daemon, only reads the files.
    await machine.boot([
      { step: "run", words: ["mount", "-o", "ro", files.path, "/mnt"] },
      { step: "run", words: ["umount", "/mnt"] },
    ]);
    const rescued = await machine.boot([...serve, { step: "look" }, ...STOP]);
    const filesRescued = trackerOf(rescued, files.path);
    assert.notEqual(filesRescued.generation, was(files.path));
    assert.equal(filesRescued.reason, "tracking_broken");
  },

  "damage, another disk and a medium that is read-only are named; fronts serve all the same":
    async (machine) => {
      await trackAndStop(machine);
      machine.disks.raw.serial = "power-other";
      const damaged = await machine.boot([
        { step: "mountState", device: state.path },
        { step: "mountStore", device: store.path },
        { step: "damage", name: "cbt-", at: 5000 },
        { step: "startDaemon" },
        { step: "look" },
        { step: "attach", device: files.path },
        { step: "checkFiles", device: files.path },
        ...STOP,
        { step: "mountState", device: state.path, readOnly: true },
        { step: "startDaemon" },
        { step: "attach", device: raw.path },
        { step: "attach", device: files.path, persistent: false },
        { step: "attach", device: raw.path, persistent: false },
        { step: "look" },
        write(FRONT_OF_RAW, 1),
        { step: "stopDaemon" },
      ]);
      const [withDamage, readOnly] = looks(damaged);
      assert.equal(trackerIn(withDamage, raw.path), undefined, "another disk is attached");
      assert.match(withDamage.log, /\/dev\/vda is not attached again: .*another device/);
      const tracker = trackerIn(withDamage, files.path);
      assert.equal(tracker.reason, "tracking_broken");
      assert.match(tracker.persistence.why, /journal is not used: page 0 of the checkpoint/);
      const refused = damaged.filter(({ event }) => event === "refused");
      assert.deepEqual(
        refused.map(({ device, code }) => [device, code]),
        [
          [raw.path, "PERSISTENT_STATE_UNUSABLE"],
          [files.path, "PERSISTENT_STATE_UNUSABLE"],
        ],
      );
      assert.equal(trackerIn(readOnly, raw.path).persistence.state, "off");
      assert.match(readOnly.log, /no persistent tracker is attached again: .*EROFS|read-only/);
    },
};
