/** Each option in blksnapd's help, with each kind of invalid value. */
import { execFileSync, spawnSync } from "node:child_process";
import fs, { readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { native } from "@blksnap/uring/testing";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { defaultOf, OPTIONS, usageOf } from "../dist/option-table.js";
import { driverOptions, parseOptions, standbysOf } from "../dist/options.js";
import { run } from "../dist/program.js";

const program = join(import.meta.dirname, "../bin/blksnapd.mjs");
const help = execFileSync(process.execPath, [program, "--help"], { encoding: "utf8" });
/** Options with the placeholder of their value; none for flags. */
const options = [...help.matchAll(/(?<=^ {2}|, )--([a-z-]+)(?: ([A-Z]+))?/gm)].map(
  ([, name, placeholder]) => [name!, placeholder] as const,
);
const HUGE = "9".repeat(100_000);
const notNumbers = ["", "-5", "-1", HUGE, "ten", "0x10", "1e3", "1.5", " 5", "NaN", "Infinity"];
const wrongValues: Readonly<Record<string, readonly string[]>> = {
  PATH: [""],
  ADDRESS: ["", "localhost", "::1", "192.0.2.1:0", "192.0.2.1:65536", "[192.0.2.1]", "1:2:3", HUGE],
  LEVEL: ["", "loud", "toString", HUGE],
  KIND: ["", "udp", "toString", HUGE],
  N: notNumbers,
  BYTES: [...notNumbers, "0", "1"],
  MS: [...notNumbers, "0"],
};

/** Runs the program, which must refuse; returns the line that it prints. */
async function refused(args: string[]): Promise<string> {
  const lines: string[] = [];
  const { writeSync } = fs;
  const { sendNow } = native;
  const keep = (_: number, bytes: unknown): number => {
    lines.push(
      Buffer.from(bytes as Uint8Array)
        .toString()
        .trimEnd(),
    );
    return (bytes as Uint8Array).length;
  };
  // Its complaints go to stderr directly, not through the console.
  fs.writeSync = keep;
  native.sendNow = keep;
  syncBuiltinESMExports();
  try {
    await run(args);
    assert.is(process.exitCode, 2, args.join(" ").slice(0, 100));
  } finally {
    fs.writeSync = writeSync;
    native.sendNow = sendNow;
    syncBuiltinESMExports();
    process.exitCode = 0;
  }
  assert.is(lines.length, 1);
  assert.match(lines[0]!, /^blksnapd: [^\n]+\. See blksnapd --help$/);
  assert.ok(lines[0]!.length < 250, lines[0]);
  return lines[0]!;
}

test("the help shows options of each kind", () => {
  assert.ok(options.length > 15);
  for (const [, placeholder] of options) {
    assert.ok(placeholder === undefined || Object.hasOwn(wrongValues, placeholder), placeholder);
  }
});

test("README and help list the options of the table, with their defaults", () => {
  const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");
  const rows = readme.split("\n").map((line) => line.replace(/ +/g, " "));
  const shown = OPTIONS.filter(({ internal }) => internal !== true);
  const wanted = shown.map((option) =>
    `| \`${usageOf(option)}\` | ${defaultOf(option)} | ${option.help} |`.replace(/ +/g, " "),
  );
  assert.equal(
    rows.filter((row) => row.startsWith("| `--")),
    wanted,
  );
  assert.equal(
    options.map(([name]) => name),
    shown.map(({ option }) => option),
  );
  const text = help.replace(/\s+/g, " ");
  for (const option of shown) {
    const ending = defaultOf(option) === "" ? "" : ` (default: ${defaultOf(option)})`;
    assert.ok(text.includes(`${usageOf(option)} ${option.help}${ending}`), option.option);
  }
  assert.equal(
    help.split("\n").filter((line) => line.length > 101),
    [],
  );
});

test("options reach the driver under the names of the table, and nothing else does", () => {
  const logger = pino({ enabled: false });
  const wanted = { reactors: 3, maxIoBytes: 8192, trustReboots: true, stateDirectory: "/x" };
  const args = ["--reactors=3", "--max-io=8192", "--trust-reboots", "--state-dir=/x"];
  const values = parseOptions([...args, "--chunk-minimum-shift=20", "--standbys=2", "--keep"]);
  const parameters = { chunkMinimumShift: 20 };
  assert.equal(driverOptions(values, logger), { logger, ...wanted, parameters });
  assert.is(standbysOf(values), 2);
  assert.equal(driverOptions(parseOptions([]), logger), { logger, parameters: {} });
});

for (const [name, placeholder] of options) {
  test(`blksnapd --${name}`, async () => {
    if (placeholder === undefined) {
      assert.match(await refused([`--${name}=1`]), `--${name}`);
      return;
    }
    assert.match(await refused([`--${name}`]), `--${name}`);
    for (const value of wrongValues[placeholder]!) {
      assert.match(await refused([`--${name}=${value}`]), `--${name}`);
    }
  });
}

test("unknown options of blksnapd are refused", async () => {
  assert.match(await refused(["--no-such-option"]), "--no-such-option");
  assert.match(await refused(["stray"]), "stray");
  assert.match(await refused(["--max-io=5000"]), "--max-io: 5000 is not a multiple of 4096");
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, "--reactors", "0"]);
  assert.equal([status, stdout.toString()], [2, ""]);
  assert.match(
    stderr.toString(),
    /^blksnapd: --reactors: '0' is not a whole number from 1 to 16\. See/,
  );
});

test.run();
