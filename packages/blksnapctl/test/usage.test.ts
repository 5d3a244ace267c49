import { test } from "uvu";
import * as assert from "uvu/assert";
import { run } from "../dist/run.js";
import { type Harness, startHarness, terminals } from "./harness.js";

const UNKNOWN_ID = "00000000-0000-4000-8000-000000000000";
const id = ["--id", UNKNOWN_ID];
const device = ["--device", "/dev/loop0"];
const create = ["snapshot_create", ...device, "--file", "/var/tmp", "--limit"];

let harness: Harness;
test.before(async () => {
  harness = await startHarness();
});
test.after(() => harness.stop());

/** Runs within this process: a process for every row would take most of the time. */
async function inProcess(
  args: readonly string[],
): Promise<{ status: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const status = await run(args, {
    environment: { BLKSNAP_SOCKET: harness.socketPath },
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

/** Arguments, exit status, stable name, and the line on standard error. */
type Case = readonly [args: readonly string[], status: number, name: string, line: RegExp];

const wrongUsage: readonly Case[] = [
  [[], 2, "USAGE", /^blksnapctl: no command is given\. See blksnapctl --help\.$/],
  [["nonsense"], 2, "USAGE", /there is no command 'nonsense'\./],
  [
    ["snapshot_tak"],
    2,
    "USAGE",
    /there is no command 'snapshot_tak'\. Did you mean snapshot_take\?$/,
  ],
  [["ATTACH", ...device], 2, "USAGE", /no command 'ATTACH'\. Did you mean attach\?$/],
  [
    ["help", "snapshot_tak"],
    2,
    "USAGE",
    /no command 'snapshot_tak'\. Did you mean snapshot_take\?$/,
  ],
  [["help", "take"], 2, "USAGE", /there is no command 'take'\. /],
  [["--wait=", "version"], 2, "USAGE", /'--wait' has no value\. Give --wait=SECONDS, or no =\.$/],
  [["--wait", "5", "version"], 2, "USAGE", /'5' is an unexpected argument\. Give --wait=5\.$/],
  [["version", "--wait", "5"], 2, "USAGE", /'5' is an unexpected argument\. Give --wait=5\.$/],
  [["--wait=x", "version"], 2, "USAGE", /wait: 'x' is not a whole .*\. Give --wait=SECONDS\.$/],
  [["5"], 2, "USAGE", /there is no command '5'\. See blksnapctl --help\.$/],
  [["daemon"], 2, "USAGE", /no command|action/],
  [["daemon", "restart"], 2, "USAGE", /restart/],
  [["daemon", "upgrade", "--keep"], 2, "USAGE", /keep: an upgrade always keeps the devices/],
  [["daemon", "stop", "now"], 2, "USAGE", /now/],
  [
    ["attach"],
    2,
    "USAGE",
    /^blksnapctl: attach: Argument 'device' is missed\. Give --device DEVICE\.$/,
  ],
  [
    ["attach", "/dev/vdb"],
    2,
    "USAGE",
    /'\/dev\/vdb' is an unexpected argument\. Give a device as --device DEVICE\.$/,
  ],
  [["attach", "--device"], 2, "USAGE", /device/],
  [["export", "-d", "/dev/vdb", "--to", "-"], 2, "USAGE", /standard output is a terminal/],
  [["export", "-d", "/dev/vdb", "--to", "-", "--raw"], 2, "USAGE", /raw: /],
  [["restore", "--from", "-", "--to", "/x"], 2, "USAGE", /standard input is a terminal/],
  [["verify", "--from", "-"], 2, "USAGE", /standard input is a terminal/],
  [
    ["restore", "--from", "-", "--to", "/x", "--delta"],
    2,
    "USAGE",
    /delta: a stream needs no such/,
  ],
  [["restore", "--from", "/b", "--to", "/x", "--record", "r"], 2, "USAGE", /record: /],
  [["attach", "--device", ""], 2, "USAGE", /Argument 'device' is empty\./],
  [["attach", ...device, ...device], 2, "USAGE", /Argument 'device' is given 2 times\./],
  [["attach", ...device, "extra"], 2, "USAGE", /extra/],
  [["attach", ...device, "--force"], 2, "USAGE", /force/],
  [["attach", ...device, "--persistant"], 2, "USAGE", /Did you mean --persistent\?$/],
  [
    ["attahc", ...device, "--persistent"],
    2,
    "USAGE",
    /no command 'attahc'\. Did you mean attach\?/,
  ],
  [["attach", "-d", "/dev/\ufffd"], 2, "USAGE", /has bytes that are not UTF-8/],
  [
    ["diff", ...device, "--since", "1", "--generation", "abc"],
    2,
    "ID_INVALID",
    /generation_id that/,
  ],
  [
    ["snapshot_take", "--id", "abcd"],
    1,
    "SNAPSHOT_NOT_FOUND",
    /no snapshot's uuid begins with abcd/,
  ],
  [
    ["snapshot_create", ...device, "-l", "1G", ..."123456789".split("").map((n) => `-f/${n}`)],
    2,
    "USAGE",
    /file: 9 stores are given, a snapshot has 8 at most/,
  ],
  [["events", ...id, "--fo"], 1, "SNAPSHOT_NOT_FOUND", /there is no snapshot/],
  [["events", ...id, "--f"], 2, "USAGE", /'--f' is ambiguous\. Write --follow or --from\.$/],
  [["snapshot_info", ...device, "-f", "size"], 2, "USAGE", /field: 'size' is unknown\. Give image/],
  [["snapshot_take", "--id", "7"], 2, "ID_INVALID", /id: '7' is not a uuid\. Give the uuid/],
  [["snapshot_take"], 2, "USAGE", /Argument 'id' is missed\./],
  [["snapshot_waitevent", ...id], 2, "USAGE", /Argument 'timeout' is missed\./],
  [
    ["snapshot_waitevent", "-i", "abcd", "-t", "x"],
    2,
    "USAGE",
    /timeout: 'x' is not a whole number/,
  ],
  [["snapshot_waitevent", ...id, "-t", "-1"], 2, "USAGE", /timeout: '-1' is not a whole number/],
  [
    ["snapshot_waitevent", ...id, "-t", "1e9"],
    2,
    "USAGE",
    /'1e9' is not .* Give --timeout MILLISECONDS\.$/,
  ],
  [["snapshot_waitevent", ...id, "-t", "4294967296"], 2, "USAGE", /from 0 to 2147483647/],
  [["markdirtyblock", ...device], 2, "USAGE", /Argument 'ranges' is missed\./],
  [["markdirtyblock", "-r", "0:1"], 2, "USAGE", /Argument 'device' is missed\./],
  [["markdirtyblock", ...device, "-r", "0"], 2, "USAGE", /Invalid format of range string\./],
  [
    ["markdirtyblock", ...device, "-r", "0:0"],
    2,
    "USAGE",
    /Invalid format .* '0:0' has no sector\./,
  ],
  [["markdirtyblock", ...device, "-r", "0:1", "-f", "/x"], 2, "USAGE", /exclude each other/],
  [["events", ...id, "--from", "1"], 2, "USAGE", /from: it needs --follow\. Give --follow/],
  [["help", "nonsense"], 2, "USAGE", /there is no command 'nonsense'/],
  [["diff", ...device, "--since", "255"], 2, "USAGE", /since: '255' is not a whole number/],
  [["readcbtmap", ...device, "-f", "-"], 2, "USAGE", /standard output/],
  [create.slice(0, -1), 2, "USAGE", /Argument 'limit' is missed\./],
  [["snapshot_create", ...device, "-l", "1G"], 2, "USAGE", /Argument 'file' is missed\./],
  [[...create, "0"], 2, "LIMIT_INVALID", /limit: '0' is zero\./],
  [[...create, "100"], 2, "LIMIT_INVALID", /is smaller than a sector/],
  [[...create, "-5"], 2, "LIMIT_INVALID", /limit: '-5' is negative\./],
  [[...create, "1.5G"], 2, "LIMIT_INVALID", /limit: '1\.5G' is a fraction\./],
  [[...create, "NaN"], 2, "LIMIT_INVALID", /limit: 'NaN' is not a size\./],
  [[...create, "2GB"], 2, "LIMIT_INVALID", /limit: '2GB' is ambiguous, write 2G or 2GiB\./],
  [[...create, "9007199254740992"], 2, "LIMIT_INVALID", /too large/],
  [[...create, "99999999999999999999E"], 2, "LIMIT_INVALID", /too large/],
  [[...create, "1G", "--on-overflow", "panic"], 2, "USAGE", /on-overflow: 'panic' is not a policy/],
  [
    [...create, "1G", "--on-overflow", "block-writes=0"],
    2,
    "USAGE",
    /'block-writes=0' is not a policy/,
  ],
];

const failing: readonly Case[] = [
  [
    ["attach", "-d", "/dev/none"],
    1,
    "DEVICE_NOT_FOUND",
    /can't attach \/dev\/none: no such device\. Check/,
  ],
  [["detach", ...device], 1, "NOT_ATTACHED", /\/dev\/loop0 is not attached\. Attach it first/],
  [["snapshot_take", ...id], 1, "SNAPSHOT_NOT_FOUND", /there is no snapshot 0.*snapshot_collect/],
  [["snapshot_destroy", ...id], 1, "SNAPSHOT_NOT_FOUND", /there is no snapshot 0/],
  [["snapshot_add", ...id, ...device], 1, "SNAPSHOT_NOT_FOUND", /there is no snapshot 0/],
  [["markdirtyblock", "-f", "/missing"], 1, "FILE_NOT_FOUND", /can't map \/missing/],
  [
    ["snapshot_create", ...device, "-f", "/missing", "-l", "1G"],
    1,
    "STORE_NOT_FOUND",
    /can't use the store \/missing: it does not exist\. Create/,
  ],
];

for (const [args, status, name, line] of [...wrongUsage, ...failing]) {
  test(`blksnapctl ${args.join(" ")}`, async () => {
    const outcome = await inProcess([...args, "--json"]);
    assert.is(outcome.status, status, outcome.err);
    const lines = outcome.err.split("\n");
    assert.equal([lines.length, lines[1]], [2, ""], outcome.err);
    assert.match(lines[0]!, line);
    assert.match(lines[0]!, /^blksnapctl: /);
    assert.is(JSON.parse(outcome.out).error.name, name);
  });
}

test("without --json standard output stays empty", async () => {
  const { status, out, err } = await harness.run("detach", ...device);
  assert.equal([status, out], [1, ""]);
  assert.match(err, /^blksnapctl: detach: /);
});

test("a module error with its errno: a device in a snapshot cannot be detached", async () => {
  const made = (await harness.ok(...create, "1G")).trim();
  const { status, out } = await harness.run("detach", ...device, "-j");
  assert.is(status, 1);
  const { error } = JSON.parse(out);
  assert.equal([error.name, error.errno, error.errno_name], ["DEVICE_IN_SNAPSHOT", 16, "EBUSY"]);
  const twice = await harness.run("snapshot_add", "-i", made, ...device, "-j");
  assert.is(JSON.parse(twice.out).error.errno_name, "EALREADY");
  await harness.ok("snapshot_take", "-i", made);
  const taken = await harness.run("snapshot_take", "-i", made, "-j");
  assert.is(JSON.parse(taken.out).error.errno_name, "EALREADY");
  await harness.ok("snapshot_destroy", "-i", made);
  const gone = await harness.run("snapshot_destroy", "-i", made, "-j");
  assert.is(JSON.parse(gone.out).error.errno_name, "ENODEV");
});

test("errors for a missing daemon and a forbidden socket say what to do", async () => {
  const none = await harness.run("status", "--socket", "/nowhere/s.sock", "-j");
  assert.is(none.status, 1);
  assert.match(
    none.err,
    /no daemon at \/nowhere\/s\.sock: there is no socket\. Start it: systemctl start blksnapd/,
  );
  assert.is(JSON.parse(none.out).error.name, "DAEMON_NOT_RUNNING");
});

test("options may be shortened, and values may follow them directly", async () => {
  assert.match(await harness.ok("attach", "--dev=/dev/loop0"), "front=");
  assert.match(await harness.ok("attach", "-d/dev/loop0", "--js"), "{");
  assert.match(await harness.ok("--json", "cbtinfo", "-d=/dev/loop0"), "{");
  assert.match(
    await harness.ok("--so", harness.socketPath, "cbtinfo", "--devi", "/dev/loop0"),
    "=",
  );
  const { err } = await harness.run("snapshot_destroy", `-i${UNKNOWN_ID}`);
  assert.match(err, `there is no snapshot ${UNKNOWN_ID}`);
});

test.run();
