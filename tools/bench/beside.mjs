// Reads of an image while a writer changes the original: each first write saves a block, so the image's stretches
// change from the original to the store under its reader.
import { makeCandidate } from "./candidates.mjs";
import { named } from "./costs.mjs";
import { fioJobs, timedJob } from "./fio.mjs";

const MIB = 2 ** 20;
const RANGE_BYTES = 256 * MIB;
const WRITER_DEPTH = 8;
const WARM_UP_S = 1;

const READS = [
  { name: "4 KiB random, QD 32", rw: "randread", blockBytes: 4096, depth: 32 },
  { name: "1 MiB in sequence, QD 4", rw: "read", blockBytes: MIB, depth: 4 },
];
const LOADS = READS.flatMap(({ name }) => [
  { name: `image beside a writer: reads, ${name}`, key: `reads ${name}` },
  {
    name: `image beside a writer: its writes, 4 KiB random, QD ${WRITER_DEPTH}, beside ${name}`,
    key: `writes ${name}`,
  },
]);

/** The candidate is made anew for each read: after the first one, most of the original would be saved. */
async function measureRead(candidate, read, runtimeS) {
  const { self, image, end } = await makeCandidate(candidate, RANGE_BYTES);
  const range = { sizeBytes: RANGE_BYTES };
  const reader = { ...range, ...read, path: image.path };
  const writer = {
    ...range,
    name: "writer",
    path: self.path,
    rw: "randwrite",
    blockBytes: 4096,
    depth: WRITER_DEPTH,
  };
  try {
    await fioJobs(timedJob({ ...reader, name: "warm", runtimeS: WARM_UP_S }));
    const jobs = [timedJob({ ...reader, name: "reader", runtimeS })];
    jobs.push(timedJob({ ...writer, runtimeS }));
    const [readJob, writeJob] = await fioJobs(jobs.flat());
    for (const { error, jobname } of [readJob, writeJob]) {
      if (error !== 0) throw new Error(`fio's ${jobname} beside an image: error ${error}`);
    }
    return { reads: readJob.read.iops, writes: writeJob.write.iops };
  } finally {
    await end();
  }
}

async function measureBeside(candidate, { runtimeS }) {
  const values = {};
  for (const read of READS) {
    const { reads, writes } = await measureRead(candidate, read, runtimeS);
    Object.assign(values, { [`reads ${read.name}`]: reads, [`writes ${read.name}`]: writes });
  }
  return named(LOADS, values);
}

/** The front is its own image: reads and writes of one disk, none of which copies. */
export const BESIDE_GROUP = {
  candidates: ["front", "front, snapshot", "dm-snapshot P 8"],
  reference: "front",
  loads: LOADS,
  measure: measureBeside,
};
