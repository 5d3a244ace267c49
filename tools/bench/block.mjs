// Block devices under fio: which candidates, under which loads, in which order.
import { cpus, release } from "node:os";
import { CANDIDATES, closeBench, openBench } from "./candidates.mjs";
import { fioIops } from "./fio.mjs";

const MIB = 2 ** 20;
/** As far as the disk has data when a candidate is set up. */
const FILLED_BYTES = 256 * MIB;
/** One write into each chunk of this: none of them has a slot before. */
const SPARSE_BYTES = 2048 * MIB;
const SPARSE_STEP_BYTES = 256 * 1024;
/** Every block of this is visited once. */
const DENSE_BYTES = 128 * MIB;
/** Of the changed-block map of such a disk. */
const CBT_BLOCK_BYTES = 65_536;

const random4K = { blockBytes: 4096, sizeBytes: FILLED_BYTES, isTimed: true };
const sequential1M = { blockBytes: MIB, sizeBytes: FILLED_BYTES, depth: 4, isTimed: true };
const once4K = { blockBytes: 4096, sizeBytes: DENSE_BYTES };
const WITH_SNAPSHOT = ["front, snapshot", "dm-snapshot P 8", "dm-snapshot P 128"];

/** The first pass finds nothing saved, the second one all. */
function firstWrites(depth) {
  const sparse = { rw: "write", blockBytes: 4096, depth, sizeBytes: SPARSE_BYTES };
  const dense = { rw: "randwrite", ...once4K, depth };
  const step = { ...sparse, stepBytes: SPARSE_STEP_BYTES };
  const candidates = ["front", ...WITH_SNAPSHOT];
  return [
    {
      candidates,
      reference: "front",
      loads: [
        { name: `first write to a chunk, 4 KiB, QD ${depth}`, ...step },
        { name: `write again, 4 KiB, a chunk each, QD ${depth}`, ...step },
      ],
    },
    {
      candidates,
      reference: "front",
      loads: [
        { name: `first write to a block, 4 KiB random, QD ${depth}`, ...dense },
        { name: `write again, 4 KiB random, QD ${depth}`, ...dense },
      ],
    },
  ];
}

/** As firstWrites(), from the first block to the last. */
function firstInSequence({ blockBytes, depth, name }) {
  const load = { rw: "write", blockBytes, depth, sizeBytes: DENSE_BYTES };
  return {
    candidates: ["front", ...WITH_SNAPSHOT],
    reference: "front",
    loads: [
      { name: `first write in sequence, ${name}`, ...load },
      { name: `write again in sequence, ${name}`, ...load },
    ],
  };
}

const PERSISTENT = ["front, state disk", "persistent front"];

/** Each begins with a map in which nothing is recorded. */
function persistent(loads) {
  return { candidates: PERSISTENT, reference: PERSISTENT[0], loads };
}

function recorded(depth) {
  return { name: `recorded blocks, 4 KiB random write, QD ${depth}`, rw: "randwrite", depth };
}

function firstRecord(depth) {
  const blocks = { blockBytes: CBT_BLOCK_BYTES, sizeBytes: FILLED_BYTES };
  const name = `first writes to a block of the map, random, QD ${depth}`;
  return persistent([{ name, rw: "randwrite", depth, ...blocks }]);
}

/** What can be measured. Each group of a series is set up anew for each candidate and round. */
export const SERIES = {
  passthrough: {
    title: "front and file target against the kernel's loop device",
    groups: [
      {
        candidates: ["loop", "loop direct", "raw disk", "file target", "front"],
        reference: "loop",
        loads: [
          { name: "4 KiB random read, QD 1", rw: "randread", depth: 1, ...random4K },
          { name: "4 KiB random write, QD 1", rw: "randwrite", depth: 1, ...random4K },
          { name: "4 KiB random read, QD 32", rw: "randread", depth: 32, ...random4K },
          { name: "4 KiB random write, QD 32", rw: "randwrite", depth: 32, ...random4K },
          { name: "1 MiB sequential read, QD 4", rw: "read", ...sequential1M },
          { name: "1 MiB sequential write, QD 4", rw: "write", ...sequential1M },
        ],
      },
    ],
  },
  sequential: {
    title: "first writes in sequence, and writes again, against the front without a snapshot",
    groups: [
      firstInSequence({ blockBytes: 4096, depth: 1, name: "4 KiB, QD 1" }),
      firstInSequence({ blockBytes: 4096, depth: 32, name: "4 KiB, QD 32" }),
      firstInSequence({ blockBytes: MIB, depth: 4, name: "1 MiB, QD 4" }),
    ],
  },
  "first-write": {
    title: "copy-on-write against dm-snapshot, and the front without a snapshot",
    groups: [...firstWrites(1), ...firstWrites(32)],
  },
  image: {
    title: "reads of an image against dm-snapshot's, and reads of the front",
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
    ],
  },
  persistent: {
    title: "a persistent tracker against one that is not; its state lies on a disk of 100 µs",
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
    ],
  },
};

/** The group with the candidates that are asked for. */
function chosen(group, { only, reference }) {
  const of = group.candidates.includes(reference) ? reference : group.reference;
  const pattern = new RegExp(only ?? "");
  const candidates = group.candidates.filter((name) => name === of || pattern.test(name));
  return { ...group, candidates, reference: of };
}

async function measureOnce(group, candidate, runtimeS, note) {
  const made = await CANDIDATES[candidate]();
  try {
    for (const load of group.loads) {
      const path = load.isOfImage === true ? (made.imagePath ?? made.path) : made.path;
      note(load, await fioIops(path, { ...load, runtimeS }));
    }
  } finally {
    await made.end();
  }
}

/** All candidates of all groups in turn, round for round. */
export async function measureBlock({ names, rounds, runtimeS, only, reference }) {
  const groups = names
    .flatMap((series) => SERIES[series].groups.map((group) => ({ series, ...group })))
    .map((group) => chosen(group, { only, reference }));
  const values = groups.map(({ loads }) => loads.map(() => ({})));
  await openBench({ diskBytes: SPARSE_BYTES, filledBytes: FILLED_BYTES });
  try {
    for (let round = 0; round < rounds; round++) {
      for (const [index, group] of groups.entries()) {
        for (const candidate of group.candidates) {
          await measureOnce(group, candidate, runtimeS, (load, iops) => {
            const of = values[index][group.loads.indexOf(load)];
            of[candidate] = [...(of[candidate] ?? []), iops];
          });
        }
      }
      process.stderr.write(`round ${round + 1} of ${rounds} done\n`);
    }
  } finally {
    await closeBench();
  }
  return {
    schema: 2,
    rounds,
    kernel: release(),
    processors: cpus().length,
    groups: groups.map(({ series, reference: of, loads }, index) => ({
      series,
      unit: "IOPS",
      reference: of,
      loads: loads.map(({ name }, at) => ({ name, values: values[index][at] })),
    })),
  };
}
