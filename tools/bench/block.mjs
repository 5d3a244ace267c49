// Groups of candidates in turn, round for round.
import { cpus, release } from "node:os";
import { closeBench, makeCandidate, openBench, whyNot } from "./candidates.mjs";
import { DISK_KINDS } from "./disks.mjs";
import { fioIops } from "./fio.mjs";
import { number } from "./report.mjs";
import { DISK_BYTES, FILLED_BYTES, SERIES } from "./series.mjs";

/** How long a timed load runs before it is measured, if it has to be warm. */
const WARM_UP_S = 1;

/** An endless load, within the disk's capability: its target, and its warm-up. */
function scaled(load, share) {
  const { sizeBytes = 0, warmUp } = load;
  const warm = warmUp && { ...warmUp, sizeBytes: warmUp.sizeBytes * share };
  return { ...load, sizeBytes: sizeBytes * share, warmUp: warm };
}

/** The group with the candidates and loads that are asked for, and its sizes as the disk bears them. */
function chosen(group, { only, loads: wanted, reference, kind }) {
  const of = group.candidates.includes(reference) ? reference : group.reference;
  const pattern = new RegExp(only ?? "");
  const candidates = group.candidates.filter((name) => name === of || pattern.test(name));
  const { share } = DISK_KINDS[kind];
  const isWanted = new RegExp(wanted ?? "");
  const loads = group.loads
    .filter(({ name }) => isWanted.test(name))
    .map((load) => (load.isTimed === true ? load : scaled(load, share)));
  return { ...group, candidates, reference: of, loads };
}

/** Candidates that this machine does not have are left out, and named. */
async function presentOnly(groups) {
  const missing = {};
  for (const { candidates, measure } of groups) {
    if (measure !== undefined) continue;
    for (const name of candidates) {
      if (name in missing) continue;
      missing[name] = await whyNot(name);
      if (missing[name] !== undefined) {
        process.stderr.write(`bench: "${name}" is left out: ${missing[name]}\n`);
      }
    }
  }
  const isHere = (name) => missing[name] === undefined;
  const present = groups.map((group) => ({
    ...group,
    candidates: group.candidates.filter(isHere),
  }));
  const leftOut = Object.entries(missing).filter(([, why]) => why !== undefined);
  return { present, leftOut: Object.fromEntries(leftOut) };
}

async function warmedUp(device, load) {
  if (load.warmUp !== undefined) await fioIops(device, { ...load, ...load.warmUp });
  else if (load.isWarm === true) await fioIops(device, { ...load, runtimeS: WARM_UP_S });
}

/** How far a load writes, during the warm-up or the measurement. */
function endBytes({ sizeBytes, warmUp }) {
  return Math.max(sizeBytes, warmUp === undefined ? 0 : warmUp.offsetBytes + warmUp.sizeBytes);
}

async function measureLoads(group, candidate, runtimeS, note) {
  const loadBytes = Math.max(...group.loads.map(endBytes));
  const made = await makeCandidate(candidate, loadBytes);
  try {
    for (const load of group.loads) {
      const device = load.isOfImage === true ? made.image : made.self;
      await warmedUp(device, load);
      const reached = await fioIops(device, { ...load, runtimeS });
      note(load.name, reached[group.value ?? "iops"]);
    }
  } finally {
    await made.end();
  }
}

async function measureOnce(group, candidate, bench, runtimeS, note) {
  if (group.measure === undefined) return await measureLoads(group, candidate, runtimeS, note);
  const values = await group.measure(candidate, { ...bench, runtimeS });
  for (const { name } of group.loads) if (values[name] !== undefined) note(name, values[name]);
}

/** The saved results, from which texts and drawings are made. */
function resultsOf(groups, values, about) {
  return {
    schema: 2,
    kernel: release(),
    processors: cpus().length,
    ...about,
    groups: groups.map(({ series, unit, reference: of, loads }, index) => ({
      series,
      unit: unit ?? "IOPS",
      reference: of,
      loads: loads.map(({ name, isMoreBetter }, at) => ({
        name,
        isMoreBetter,
        values: values[index][at],
      })),
    })),
  };
}

/**
 * All candidates of all groups in turn, round by round; reports each value at once, because the whole takes long.
 *
 * @param onRound is called with the results of the rounds so far
 */
export async function measureBlock(plan) {
  const { names, rounds, runtimeS, only, loads: pattern, reference, kind, onRound } = plan;
  const wanted = names
    .flatMap((series) => SERIES[series].groups.map((group) => ({ series, ...group })))
    .map((group) => chosen(group, { only, loads: pattern, reference, kind }))
    .filter(({ loads }) => loads.length > 0);
  const { present: groups, leftOut } = await presentOnly(wanted);
  const values = groups.map(({ loads }) => loads.map(() => ({})));
  let results;
  const bench = await openBench({ kind, diskBytes: DISK_BYTES, filledBytes: FILLED_BYTES });
  try {
    for (let round = 0; round < rounds; round++) {
      for (const [index, group] of groups.entries()) {
        for (const candidate of group.candidates) {
          await measureOnce(group, candidate, bench, runtimeS, (load, value) => {
            const of = values[index][group.loads.findIndex(({ name }) => name === load)];
            of[candidate] = [...(of[candidate] ?? []), value];
            const where = `round ${round + 1} of ${rounds}, ${candidate}`;
            process.stderr.write(`${where}: ${load}: ${number(value)}\n`);
          });
        }
      }
      results = resultsOf(groups, values, { rounds: round + 1, disk: kind, leftOut });
      onRound?.(results);
    }
  } finally {
    await closeBench();
  }
  return results;
}
