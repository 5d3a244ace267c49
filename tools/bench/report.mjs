// Formats results: medians, spread, and ratios of one run or of two.

/** The median. */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Aligns rows of cells: the first column left, the others right. */
export function formatTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** A candidate's ratio to the reference, round by round, which cancels what a round's values have in common. */
export function ratioOf({ values }, candidate, reference) {
  const rounds = values[candidate].map((value, round) => value / values[reference][round]);
  return { median: median(rounds), least: Math.min(...rounds), most: Math.max(...rounds) };
}

/** Three digits, or all of a whole number. */
export function number(value) {
  return value >= 1000 ? String(Math.round(value)) : value.toPrecision(3);
}

/** One table per group: medians, and after each the ratio with its least and largest value. */
export function resultsText({ groups, rounds, disk, leftOut = {} }) {
  const texts = groups.map(({ series, unit, reference, loads }) => {
    const candidates = Object.keys(loads[0].values);
    const head = [`${series}, ${unit}`, ...candidates];
    const rows = loads.map((load) => [
      load.name,
      ...candidates.map((candidate) => {
        if (load.values[candidate] === undefined) return "";
        const value = number(median(load.values[candidate]));
        if (candidate === reference || load.values[reference] === undefined) return value;
        const ratio = ratioOf(load, candidate, reference);
        if (!Number.isFinite(ratio.least + ratio.most)) return value;
        const spread = `${ratio.least.toFixed(2)}..${ratio.most.toFixed(2)}`;
        return `${value} ×${ratio.median.toFixed(2)} (${spread})`;
      }),
    ]);
    return `${formatTable([head, ...rows])}\nratios to: ${reference}\n`;
  });
  const on = disk === undefined ? "" : ` on disks of kind ${disk}`;
  const missing = Object.entries(leftOut).map(([name, why]) => `left out: ${name}, ${why}\n`);
  return `medians of ${rounds} interleaved rounds${on}\n\n${[...texts, ...missing].join("\n")}`;
}

/** Units of which more is better, unless a load says otherwise. */
const RATES = ["IOPS", "MB/s"];

/** How the ratios have changed since another run; only where both know load, candidate, reference. */
export function comparisonText(now, before) {
  const rows = [];
  for (const { reference, unit, loads } of now.groups) {
    for (const load of loads) {
      const then = before.groups
        .filter((group) => group.reference === reference)
        .flatMap((group) => group.loads)
        .find(({ name }) => name === load.name);
      if ([load, then].some((of) => of?.values[reference] === undefined)) continue;
      for (const candidate of Object.keys(load.values)) {
        if (candidate === reference || then?.values[candidate] === undefined) continue;
        rows.push(comparison(load, then, candidate, reference, RATES.includes(unit)));
      }
    }
  }
  if (rows.length === 0) return "\nnothing in common with the other run\n";
  const head = ["ratios, before and now", "before", "now", "change", ""];
  return `\n${formatTable([head, ...rows])}\n`;
}

function comparison(load, then, candidate, reference, isRate) {
  const { isMoreBetter = isRate } = load;
  const now = ratioOf(load, candidate, reference);
  const before = ratioOf(then, candidate, reference);
  let verdict = "within the spread";
  if (now.least > before.most) verdict = isMoreBetter ? "better" : "worse";
  else if (now.most < before.least) verdict = isMoreBetter ? "worse" : "better";
  return [
    `${load.name}: ${candidate} / ${reference}`,
    before.median.toFixed(2),
    now.median.toFixed(2),
    `×${(now.median / before.median).toFixed(2)}`,
    verdict,
  ];
}
