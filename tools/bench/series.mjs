// What can be measured: which candidates, under which loads. Each group of a series is set up anew for each
// candidate and round.
import { BESIDE_GROUP } from "./beside.mjs";
import { COST_GROUPS } from "./costs.mjs";
import { DAY_GROUP } from "./day.mjs";
import { MANY_GROUP } from "./many.mjs";

const MIB = 2 ** 20;
/** As far as the disk has data when a candidate is set up. */
export const FILLED_BYTES = 256 * MIB;
export const DISK_BYTES = 8192 * MIB;
/** One write into each chunk of this: none of them has a slot before. */
const SPARSE_BYTES = 6144 * MIB;
/** One at a time a third of them take long enough. */
const SPARSE_ALONE_BYTES = 2048 * MIB;
const SPARSE_STEP_BYTES = 256 * 1024;
/** Every block of this is visited once. */
const DENSE_BYTES = 128 * MIB;
/**
 * The same load goes to other blocks before, uncounted: V8 interprets the first thousands of requests of a kind, and
 * with many in flight these are most of a load.
 */
const DENSE_WARM_UP = { offsetBytes: DENSE_BYTES, sizeBytes: DENSE_BYTES };
const DENSE_ALONE_WARM_UP = { offsetBytes: DENSE_BYTES, sizeBytes: DENSE_BYTES / 4 };
const SPARSE_WARM_UP = { offsetBytes: SPARSE_BYTES, sizeBytes: DISK_BYTES - SPARSE_BYTES };
const SPARSE_ALONE_WARM_UP = { offsetBytes: SPARSE_ALONE_BYTES, sizeBytes: 512 * MIB };
const FILLED_WARM_UP = { offsetBytes: FILLED_BYTES, sizeBytes: FILLED_BYTES };
/** Of the changed-block map of such a disk. */
const CBT_BLOCK_BYTES = 65_536;

const random4K = { blockBytes: 4096, sizeBytes: FILLED_BYTES, isTimed: true };
const sequential1M = { blockBytes: MIB, sizeBytes: FILLED_BYTES, depth: 4, isTimed: true };
const once4K = { blockBytes: 4096, sizeBytes: DENSE_BYTES };
const DM_SNAPSHOTS = [
  "dm-snapshot P 8",
  "dm-snapshot P 128",
  "dm-snapshot N 8",
  "dm-snapshot N 128",
];
const OTHERS = ["dm-thin", "dm-era", "qemu copy-before-write"];
const WITH_SNAPSHOT = ["front, snapshot", "dm-snapshot P 8", "dm-snapshot P 128"];
const PASS_THROUGH = [
  "loop",
  "loop direct",
  "raw disk",
  "C limit server",
  "C, zero copy",
  "C, batches",
  "C, zero copy, batches",
  "file target",
  "front",
  "front, copies",
];

/** Every block once. */
function dense(rw, depth, blockBytes = 4096) {
  const warmUp = depth === 1 ? DENSE_ALONE_WARM_UP : DENSE_WARM_UP;
  return { rw, blockBytes, depth, sizeBytes: DENSE_BYTES, warmUp };
}

/** Of candidates with a snapshot, against the front without one. */
function underSnapshot(loads, candidates = WITH_SNAPSHOT) {
  return { candidates: ["front", ...candidates], reference: "front", loads };
}

/** The first pass finds nothing saved, the second one all. */
function firstWrites(depth) {
  const sparse =
    depth === 1
      ? { sizeBytes: SPARSE_ALONE_BYTES, warmUp: SPARSE_ALONE_WARM_UP }
      : { sizeBytes: SPARSE_BYTES, warmUp: SPARSE_WARM_UP };
  const step = { rw: "write", blockBytes: 4096, depth, stepBytes: SPARSE_STEP_BYTES, ...sparse };
  const block = dense("randwrite", depth);
  const candidates = ["front, snapshot", ...DM_SNAPSHOTS, ...OTHERS];
  return [
    underSnapshot(
      [
        { name: `first write to a chunk, 4 KiB, QD ${depth}`, ...step },
        { name: `write again, 4 KiB, a chunk each, QD ${depth}`, ...step },
      ],
      candidates,
    ),
    underSnapshot(
      [
        { name: `first write to a block, 4 KiB random, QD ${depth}`, ...block },
        { name: `write again, 4 KiB random, QD ${depth}`, ...block },
      ],
      candidates,
    ),
  ];
}

function firstWrites64K() {
  const load = dense("randwrite", 32, 65_536);
  return underSnapshot(
    [
      { name: "first write, 64 KiB random, QD 32", ...load },
      { name: "write again, 64 KiB random, QD 32", ...load },
    ],
    ["front, snapshot", ...DM_SNAPSHOTS, ...OTHERS],
  );
}

/** As firstWrites(), from the first block to the last. */
function firstInSequence(name, blockBytes, depth) {
  const load = dense("write", depth, blockBytes);
  return underSnapshot([
    { name: `first write in sequence, ${name}`, ...load },
    { name: `write again in sequence, ${name}`, ...load },
  ]);
}

function mixed(depth) {
  const name = `70 % reads, 30 % writes, 4 KiB random, QD ${depth}`;
  return { name, rw: "randrw", readPercent: 70, depth, ...random4K };
}

/** Of an image to which nothing was written, nor to its original; and of what the first pass has put into slots. */
function imageWrites(depth) {
  const load = { ...dense("randwrite", depth), isOfImage: true };
  return underSnapshot(
    [
      { name: `first write to an image's block, 4 KiB random, QD ${depth}`, ...load },
      { name: `write again to an image, 4 KiB random, QD ${depth}`, ...load },
    ],
    ["front, snapshot", "dm-snapshot P 8"],
  );
}

const PERSISTENT = ["front, state disk", "persistent front"];

/** Each begins with a map in which nothing is recorded. */
function persistent(loads) {
  return { candidates: PERSISTENT, reference: PERSISTENT[0], loads };
}

const PERSISTENT_SNAPSHOT = ["snapshot, state disk", "persistent snapshot"];

/** Blocks of the tracker's map are recorded by the same writes. */
function underPersistent(depth) {
  const load = dense("randwrite", depth);
  const loads = [
    { name: `first write to a block, 4 KiB random, QD ${depth}`, ...load },
    { name: `write again, 4 KiB random, QD ${depth}`, ...load },
  ];
  return { candidates: PERSISTENT_SNAPSHOT, reference: PERSISTENT_SNAPSHOT[0], loads };
}

function recorded(depth) {
  return { name: `recorded blocks, 4 KiB random write, QD ${depth}`, rw: "randwrite", depth };
}

function firstRecord(depth) {
  const blocks = {
    blockBytes: CBT_BLOCK_BYTES,
    sizeBytes: FILLED_BYTES,
    warmUp: FILLED_WARM_UP,
  };
  const name = `first writes to a block of the map, random, QD ${depth}`;
  return persistent([{ name, rw: "randwrite", depth, ...blocks }]);
}

/** Warm: V8 interprets the first thousands of requests, and one at a time they are most of a second. */
const PASS_THROUGH_LOADS = [
  { name: "4 KiB random read, QD 1", rw: "randread", depth: 1, ...random4K },
  { name: "4 KiB random write, QD 1", rw: "randwrite", depth: 1, ...random4K },
  { name: "4 KiB random read, QD 32", rw: "randread", depth: 32, ...random4K },
  { name: "4 KiB random write, QD 32", rw: "randwrite", depth: 32, ...random4K },
  { name: "1 MiB sequential read, QD 4", rw: "read", ...sequential1M },
  { name: "1 MiB sequential write, QD 4", rw: "write", ...sequential1M },
].map((load) => ({ ...load, isWarm: true }));

const firstDense = dense("randwrite", 32);

export const SERIES = {
  passthrough: {
    title: "front, file target, and C with liburing against the kernel's loop device",
    groups: [
      {
        candidates: PASS_THROUGH,
        reference: "loop",
        loads: PASS_THROUGH_LOADS,
      },
    ],
  },
  sequential: {
    title: "first writes in sequence, and writes again, against the front without a snapshot",
    groups: [
      firstInSequence("4 KiB, QD 1", 4096, 1),
      firstInSequence("4 KiB, QD 32", 4096, 32),
      firstInSequence("1 MiB, QD 4", MIB, 4),
    ],
  },
  "first-write": {
    title: "copy-on-write against dm-snapshot, dm-thin, QEMU, and the front without a snapshot",
    groups: [...firstWrites(1), ...firstWrites(32), firstWrites64K()],
  },
  mixed: {
    title: "reads and writes together, under a snapshot and without",
    groups: [underSnapshot([mixed(1), mixed(32)])],
  },
  image: {
    title:
      "reads and writes of an image, also beside a writer, against dm-snapshot's and the front",
    groups: [
      {
        candidates: ["front", "front, snapshot", "dm-snapshot P 8"],
        reference: "front",
        loads: [
          { name: "first pass, 4 KiB random read, QD 32", rw: "randread", depth: 32, ...once4K },
          { name: "second pass, 4 KiB random read, QD 32", rw: "randread", depth: 32, ...once4K },
          { name: "4 KiB random read, QD 1", rw: "randread", depth: 1, ...random4K },
          { name: "1 MiB sequential read, QD 4", rw: "read", ...sequential1M },
        ].map((load) => ({ ...load, isOfImage: true })),
      },
      imageWrites(1),
      imageWrites(32),
      BESIDE_GROUP,
    ],
  },
  devices: {
    title: "1 to 8 devices over one reactor and two, all at once",
    groups: [MANY_GROUP],
  },
  persistent: {
    title: "persistent trackers and snapshots against others; state lies on a disk of 100 µs",
    groups: [
      persistent([
        {
          ...sequential1M,
          name: "first pass in sequence, 1 MiB, QD 4",
          rw: "write",
          isTimed: false,
        },
        { ...random4K, ...recorded(1) },
        { ...random4K, ...recorded(32) },
      ]),
      firstRecord(1),
      firstRecord(32),
      underPersistent(1),
      underPersistent(32),
    ],
  },
  cpu: {
    title: "processor time for each GiB, of all but fio",
    groups: [
      {
        candidates: PASS_THROUGH,
        reference: "loop",
        loads: PASS_THROUGH_LOADS.map(({ name, ...load }) => ({ ...load, name: `cpu: ${name}` })),
      },
      underSnapshot(
        [
          { name: "cpu: first write to a block, 4 KiB random, QD 32", ...firstDense },
          { name: "cpu: write again, 4 KiB random, QD 32", ...firstDense },
        ],
        ["front, snapshot", ...DM_SNAPSHOTS],
      ),
    ].map((group) => ({ ...group, unit: "s for each GiB", value: "cpuSPerGib" })),
  },
  day: {
    title: "24 hours of a database in short, with a new snapshot each hour",
    groups: [DAY_GROUP],
  },
  costs: {
    title: "snapshots by size and number of devices, recovery, memory, bytes written, fstrim",
    groups: COST_GROUPS,
  },
};
