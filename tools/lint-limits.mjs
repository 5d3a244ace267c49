/**
 * Compares docs/time-limits.md with the constants of all packages but the driver, which has a table in code: the page
 * must list each limit with its value. Pauses, intervals and units are not limits.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const PAGE = "docs/time-limits.md";
/** The driver's limits are in one file, and the other two packages are for tests. */
const OTHER_PACKAGES = ["driver", "sim-kernel", "testing"];
const CONSTANT = /^(?:export )?const ([A-Z_]+_(?:MS|S))(?:: number)? = ([^;]+);/gm;
const NO_LIMIT =
  /^(HOUR|DAY|FIRST_MONDAY|UPTIME|SLEEP|SHORT_LIFE|GATHER|DECAY|RENEWAL|QUICK)_|DELAY|BACKOFF|TICK|(INTERVAL|RETRY|PAUSE)_MS$/;
/** Derived from other limits, or bounds of timers. */
const NO_NUMBER = ["TAKE_TIMEOUT_MS", "TIMEOUT_MAX_MS", "EVENT_TIMEOUT_MAX_MS"];
const ROW = /^\|.*?\| ([\d.]+) (s|min|d) +\|.*\| `([\w/.-]+)` `(\w+)` *\|$/gm;
const MS_OF = { s: 1000, min: 60_000, d: 86_400_000 };

function inCode() {
  const packages = readdirSync("packages").filter((name) => !OTHER_PACKAGES.includes(name));
  const files = packages.flatMap((name) => {
    const folder = join("packages", name, "src");
    const inside = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
    return inside.filter((file) => file.endsWith(".ts")).map((file) => join(name, "src", file));
  });
  const limits = new Map();
  for (const file of files) {
    const text = readFileSync(join("packages", file), "utf8");
    for (const [, name, value] of text.matchAll(CONSTANT)) {
      if (NO_LIMIT.test(name) || NO_NUMBER.includes(name)) continue;
      const number = value
        .replaceAll("_", "")
        .split("*")
        .reduce((all, factor) => all * factor, 1);
      limits.set(`${file} ${name}`, name.endsWith("_MS") ? number : 1000 * number);
    }
  }
  return limits;
}

export function limitProblems() {
  const limits = inCode();
  const told = new Set();
  const problems = [];
  for (const [, value, unit, file, name] of readFileSync(PAGE, "utf8").matchAll(ROW)) {
    const key = `${file} ${name}`;
    told.add(key);
    const is = limits.get(key);
    if (is === undefined) problems.push(`${PAGE}: there is no limit ${key}`);
    else if (is !== Number(value) * MS_OF[unit])
      problems.push(`${PAGE}: ${key} is ${value} ${unit}, in the code ${is} ms`);
  }
  for (const key of limits.keys()) if (!told.has(key)) problems.push(`${PAGE} lacks ${key}`);
  return problems;
}
