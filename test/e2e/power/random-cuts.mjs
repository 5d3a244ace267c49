/** Load, cut, boot, judge; again and again on the same disks. */
import assert from "node:assert/strict";
import { DISKS, TRACKED } from "./machine.mjs";
import { compareDiff } from "./tracked.mjs";

const { raw, files, state, store } = DISKS;
/** Writes of all disks between the begin of the load and the cut. */
const CUT_AFTER_WRITES_MAX = 2500;
/** With this many cuts, losing nothing at all would be a fault of the test. */
const CUTS_THAT_LOSE = 5;

export const PREPARE = [
  { step: "format", device: state.path, type: "ext4" },
  { step: "format", device: store.path, type: "ext4" },
  { step: "format", device: files.path, type: "ext4" },
];
export const MOUNT_MEDIA = [
  { step: "mountState", device: state.path },
  { step: "mountStore", device: store.path },
];
/** The journals' content is judged, so the operator guarantees that nothing else has written. */
export const SERVE = [...MOUNT_MEDIA, { step: "startDaemon", trusts: true, closes: true }];

export const ATTACH = TRACKED.map((device) => ({ step: "attach", device }));

function loadOf(random) {
  const [pattern, blocks] = random.pick([
    ["randwrite", "4k-64k"],
    ["randwrite", "4k-4k"],
    ["write", "16k-64k"],
  ]);
  return [
    { step: "load", device: raw.path, pattern, blocks },
    { step: "loadFiles", device: files.path },
  ];
}

/** Inspects, takes, and asks what changed since the last take that was reported. */
export function inspection(machine) {
  return [
    { step: "look" },
    { step: "take", devices: TRACKED },
    ...TRACKED.map((device) => ({
      step: "diff",
      device,
      since: machine.tracked[device].number,
    })),
  ];
}

/** What is to be compared with the next boot's inspection. */
export function expectations(machine) {
  return Object.fromEntries(
    TRACKED.map((device) => [device, machine.tracked[device].expectation()]),
  );
}

/** Judges what a boot found, and its diffs. @returns {string} how much was found */
export function judge(machine, events, expected, options) {
  const look = events.find(({ event }) => event === "look");
  const notes = [];
  for (const device of TRACKED) {
    const tracker = look.trackers.find((one) => one.device === device);
    assert.ok(tracker, `${device} is not attached again\n${look.log}`);
    const { number, takeIsOpen } = expected[device];
    const where = `${device}\n${look.log}`;
    assert.equal(tracker.persistence.state, "on", where);
    assert.equal(tracker.generation, machine.tracked[device].generation, where);
    const numbers = takeIsOpen ? [number, number + 1] : [number];
    assert.ok(
      numbers.includes(tracker.number),
      `number ${tracker.number}, not ${numbers}: ${where}`,
    );
    const diff = events.find((one) => one.event === "diff" && one.device === device);
    const { problem, blocks, beyond } = compareDiff(expected[device], diff.ranges, options);
    assert.equal(problem, undefined, `${device}: ${problem}`);
    notes.push(`${blocks}+${beyond}`);
  }
  return notes.join(" ");
}

/** Notes which generation each tracker has. */
export function noteGenerations(machine, events) {
  for (const { device, generation } of events.find(({ event }) => event === "look").trackers) {
    machine.tracked[device].generation = generation;
  }
}

export function randomCuts(cuts) {
  return async (machine, random) => {
    const takeFirst = [{ step: "look" }, { step: "take", devices: TRACKED }];
    let script = [...PREPARE, ...SERVE, ...ATTACH, ...takeFirst];
    let expected;
    let frozen;
    const notes = [];
    for (let cut = 0; cut < cuts; cut++) {
      const isFrozen = random.once(3);
      const after = isFrozen
        ? { step: "takePersistent", devices: TRACKED }
        : { step: "goOn", devices: TRACKED, takes: true };
      const load = loadOf(random);
      const events = await machine.boot(
        isFrozen
          ? [...script, after, ...load, { step: "goOn", devices: TRACKED, takes: false }]
          : [...script, ...load, after],
        { cutAfterWrites: 50 + random.below(CUT_AFTER_WRITES_MAX) },
      );
      if (expected === undefined) noteGenerations(machine, events);
      else notes.push(judge(machine, events, expected));
      if (frozen) assertSameImages(events, frozen);
      frozen = events.find(({ event }) => event === "frozen");
      expected = expectations(machine);
      const found = frozen ? [{ step: "checkSnapshot", id: frozen.id }] : [];
      const check = { step: "checkFiles", device: files.path };
      script = [...SERVE, ...found, ...inspection(machine), check];
    }
    const events = await machine.boot(script);
    notes.push(judge(machine, events, expected));
    if (frozen) assertSameImages(events, frozen);
    const { lostSectors } = machine;
    if (cuts >= CUTS_THAT_LOSE) assert.ok(lostSectors > 0, "no cut has lost anything");
    return `blocks changed+ahead: ${notes.join(", ")}; ${lostSectors} unflushed sectors lost`;
  };
}

function assertSameImages(events, { id, hashes }) {
  const found = events.find((one) => one.event === "found");
  assert.equal(found?.id, id);
  assert.deepEqual(found.hashes, hashes, `the images are not what they were\n${found.log}`);
}
