/**
 * Each verb and option of the catalogue with each kind of invalid value: a new option is tested automatically,
 * starting from the verb's own examples.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { globalOptions, verbs } from "../dist/catalog.js";
import { run } from "../dist/run.js";
import type { OptionSpec, Verb } from "../dist/verb.js";
import { exampleCommands } from "./examples.js";
import { terminals } from "./harness.js";

const UUID = "00000000-0000-4000-8000-000000000000";
const USAGE_STATUS = 2;
const HUGE = "9".repeat(100_000);
/** Invalid where a whole number is expected. */
const notNumbers = ["ten", "0x10", "1e3", "1.5", " 5", "5 ", "+5", "NaN", "Infinity", "٣", "5,6"];
const notIds = ["7", "x", UUID.slice(1), `{${UUID}}`, UUID.replaceAll("-", ""), `${UUID} `];

interface Samples {
  readonly good: string;
  /** Invalid values of this kind. */
  readonly wrong: readonly string[];
}

const path: Samples = { good: "/dev/sdb", wrong: [`/${"x".repeat(4096)}`, "é".repeat(2048)] };

/** By the placeholder in help. Huge and negative values are added to each. */
const samplesOf: Readonly<Record<string, Samples>> = {
  "ADDRESS[:PORT]": {
    good: "192.0.2.1:10809",
    wrong: ["", "localhost", "::1", "192.0.2.1:0", "192.0.2.1:65536", "[192.0.2.1]", "1:2:3"],
  },
  DEVICE: path,
  DIR: path,
  FILE: path,
  PATH: path,
  SOCKET: { good: "point.sock", wrong: ["x".repeat(108), "é".repeat(54)] },
  UUID: { good: UUID, wrong: notIds },
  POINT: { good: "2038-01-01T06:00Z", wrong: ["", "a b", "é", "a/b", "x".repeat(65)] },
  VOLUME: { good: "data", wrong: ["", ".", "..", "-a", "a b", "é", "vg/data", "x".repeat(128)] },
  HOST: { good: "db-1.example.org", wrong: ["", "a b", "é", "a/b", "x".repeat(65)] },
  NUMBER: { good: "1", wrong: [...notNumbers, "99999999999999999"] },
  "[LOG:]NUMBER": {
    good: "01234567:8",
    wrong: [...notNumbers, "1:2", "0123456:1", "01234567:", ":1", "ABCDEF01:1", "1234567890123456"],
  },
  SECONDS: { good: "1", wrong: [...notNumbers, "86401"] },
  NAME: { good: "backup", wrong: ["", "a b", "é", "a/b", "x".repeat(65)] },
  URL: {
    good: "https://s3.example.org",
    wrong: ["", "a b", "s3.example.org", "ftp://host", "https://id:key@host", "https://host/path"],
  },
  MILLISECONDS: { good: "10", wrong: [...notNumbers, "2147483648"] },
  SIZE: { good: "1G", wrong: [...notNumbers, "0", "511", "1X", "2GB", "9E", "K", "G1"] },
  "FIRST:COUNT": {
    good: "0:8",
    wrong: [...notNumbers, "7", ":", "1:", ":1", "0:0", "1:1:1", "-1:1", "9007199254740991:1"],
  },
  POLICY: {
    good: "fail-writes",
    wrong: ["panic", "BREAK-SNAPSHOT", "block-writes=", "block-writes=0", "block-writes=1.5"],
  },
  FIELD: { good: "image", wrong: ["size", "IMAGE", "image,front"] },
  FORMAT: { good: "json", wrong: ["nbd", "JSON", "json,raw", " raw"] },
};

let dir: string;
let server: Server;
let requests = 0;
test.before(async () => {
  dir = mkdtempSync(join(tmpdir(), "blksnapctl-bad-"));
  server = createServer((socket) => {
    requests++;
    socket.destroy();
  });
  await new Promise<void>((done) => server.listen(join(dir, "s.sock"), done));
});
test.after(() => {
  server.close();
  rmSync(dir, { recursive: true });
});

async function runBadly(args: readonly string[]) {
  let out = "";
  let err = "";
  const status = await run(args, {
    environment: { BLKSNAP_SOCKET: join(dir, "s.sock") },
    columns: undefined,
    writeOut: (text) => {
      out += text;
    },
    writeError: (text) => {
      err += text;
    },
    untilInterrupted: () => new AbortController().signal,
    streams: terminals,
  });
  return { status, out, err };
}

/** Fails unless the verb is refused as wrong usage, by the option's name, before it contacts the daemon. */
async function refused(verb: Verb, option: string, args: readonly string[]): Promise<void> {
  const what = [verb.name, ...args].join(" ").slice(0, 200);
  const jsonFirst = option === "json" ? [] : ["--json"];
  const { status, out, err } = await runBadly([...jsonFirst, verb.name, ...args]);
  assert.is(status, USAGE_STATUS, `${what}: ${err.slice(0, 400)}`);
  assert.match(err, new RegExp(`^blksnapctl: ${verb.name}: [^\\n]*${option}[^\\n]*\\n$`), what);
  assert.ok(err.length < 400, `${what}: ${err.length} characters`);
  if (out !== "") assert.is(JSON.parse(out).error.errno_name, "EINVAL", what);
  assert.is(requests, 0, `${what} reached the daemon`);
}

type Options = ReadonlyMap<string, readonly string[]>;

/** The options of an example that uses this one; otherwise of the first example. */
function goodOptions(verb: Verb, option: string): Options {
  const all = exampleCommands(verb).map(({ values }) => values);
  const chosen = all.find((values) => values.has(option)) ?? all[0]!;
  return new Map([...chosen].filter(([name]) => name !== "json"));
}

function isOperand({ operands = [] }: Verb, name: string): boolean {
  return operands.some((operand) => operand.name === name);
}

function asArguments(verb: Verb, options: Options): string[] {
  return [...options].flatMap(([name, values]) => {
    if (name === verb.action?.name || isOperand(verb, name)) return values;
    return values.map((value) => (value === "" ? `--${name}` : `--${name}=${value}`));
  });
}

function without(verb: Verb, options: Options, option: string): string[] {
  return asArguments(verb, new Map([...options].filter(([name]) => name !== option)));
}

for (const verb of verbs) {
  for (const [option, spec] of Object.entries({ ...verb.options, ...globalOptions })) {
    test(`${verb.name} --${option}`, () => refusedInAllWays(verb, option, spec));
  }
  test(`${verb.name} with unknown words`, async () => {
    const good = asArguments(verb, goodOptions(verb, ""));
    await refused(verb, "--no-such-option", [...good, "--no-such-option"]);
    await refused(verb, "--no-such-option", [...good, "--no-such-option=1"]);
    await refused(verb, "--", [...good, "--=x"]);
    await refused(verb, "-Z", [...good, "-Z"]);
    if (verb.operands === undefined) {
      await refused(verb, "stray", ["stray", ...good]);
      await refused(verb, "stray", ["--", "stray"]);
      await refused(verb, "''", ["", ...good]);
    } else {
      await refused(verb, "stray", [...good, "stray"]);
      await refused(verb, "''", [...good, ""]);
    }
  });
}

async function refusedInAllWays(verb: Verb, option: string, spec: OptionSpec): Promise<void> {
  const good = goodOptions(verb, option);
  const rest = without(verb, good, option);
  if (spec.required === true) await refused(verb, option, rest);
  if (spec.value === undefined) {
    await refused(verb, option, [...rest, `--${option}`, `--${option}`]);
    for (const value of ["", "true", "no", "1"]) {
      await refused(verb, option, [...rest, `--${option}=${value}`]);
    }
    return;
  }
  const samples = samplesOf[spec.value];
  assert.ok(samples, `samplesOf lacks ${spec.value}, the value of ${verb.name} --${option}`);
  if (spec.optional !== true) {
    await refused(verb, option, [...rest, `--${option}`]);
    await refused(verb, option, [...rest, `--${option}=`]);
    await refused(verb, option, [...rest, `--${option}`, ""]);
  }
  if (spec.many !== true) {
    const once = `--${option}=${samples.good}`;
    await refused(verb, option, [...rest, once, once]);
  }
  for (const wrong of [...samples.wrong, HUGE, "-5", "-0.5"]) {
    await refused(verb, option, [...rest, `--${option}=${wrong}`]);
    if (spec.short !== undefined) await refused(verb, option, [...rest, `-${spec.short}${wrong}`]);
    if (spec.many === true) {
      await refused(verb, option, [...rest, `--${option}`, samples.good, wrong]);
    }
  }
}

test.run();
