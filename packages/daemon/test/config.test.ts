/** The configuration files: which values count, and how mistakes are reported. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StateFile } from "@blksnap/driver";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DAEMON_KEYS, DEVICE_KEYS, readConfig } from "../dist/config/config.js";
import { problemText } from "../dist/config/config-problem.js";
import { settingsInForce, withEarlierConfig } from "../dist/config/in-force.js";
import { configDocument, configText } from "../dist/config/print-config.js";
import { bootClockMs, SERVED_FILE_NAME, ServedFile } from "../dist/config/served.js";
import { OPTIONS } from "../dist/option-table.js";
import { parseOptions } from "../dist/options.js";

const program = join(import.meta.dirname, "../bin/blksnapd.mjs");
let folder: string;
let config: string;

function write(text: string, dropIns: Readonly<Record<string, string>> = {}): void {
  writeFileSync(config, text);
  for (const [name, dropIn] of Object.entries(dropIns)) {
    writeFileSync(join(`${config}.d`, name), dropIn);
  }
}

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-config-"));
  config = join(folder, "blksnap.toml");
  mkdirSync(`${config}.d`);
});
test.after.each(() => rmSync(folder, { recursive: true }));

function inForce(args: string[] = [], environment = {}) {
  return settingsInForce(parseOptions([`--config=${config}`, ...args]), environment);
}

function complaints(text: string): string[] {
  const { problems } = readConfig([{ path: "c", text }]);
  return problems.map(problemText);
}

test("a device in use is refused with the line that configures it", () => {
  write('[[device]]\ndevice = "/dev/vg/a"\n', {
    "b.toml": 'device = [{ device = "/dev/disk/by-partuuid/b" }]\n',
  });
  const { config: read, problems } = inForce();
  assert.equal(
    [read.devices.map(({ device }) => device), problems],
    [["/dev/vg/a", "/dev/disk/by-partuuid/b"], []],
  );
});

test("command line before environment before drop-ins before file before default", () => {
  write('[daemon]\nreactors = 1\nfront-depth = 2\nio-timeout = 500\nsocket = "/s/file"\n', {
    "10-a.toml": "[daemon]\nfront-depth = 3\nio-timeout = 600\n",
    "20-b.toml": "[daemon]\nio-timeout = 700\n",
    ".hidden.toml": "[daemon]\nio-timeout = 800\n",
    "note.txt": "no TOML",
  });
  const options = ["--io-timeout=900"];
  const now = inForce(options, { BLKSNAP_SOCKET: "/s/environment" });
  assert.equal(now.problems, []);
  assert.equal(
    now.files,
    [config, "10-a.toml", "20-b.toml"].map((name, at) => (at ? join(`${config}.d`, name) : name)),
  );
  assert.equal(Object.fromEntries(now.origins), {
    config: "command line",
    reactors: `${config}:2`,
    "front-depth": join(`${config}.d`, "10-a.toml:2"),
    "io-timeout": "command line",
    socket: "$BLKSNAP_SOCKET",
  });
  const { values } = now;
  assert.equal([values["reactors"], values["front-depth"]], ["1", "3"]);
  assert.equal([values["io-timeout"], values["image-depth"]], ["900", undefined]);
  assert.is(values.socket, undefined, "the environment's, which the client reads as well");
  assert.is(inForce().values.socket, "/s/file");
  assert.is(inForce(["--socket=/s/o"], { BLKSNAP_SOCKET: "/s/e" }).values.socket, "/s/o");
});

const wrongValues = {
  flag: '"yes"',
  path: "1",
  level: '"loud"',
  address: '"localhost:1"',
  choice: '"udp"',
  count: '"1"',
  bytes: "0.5",
  ms: "true",
};

test("each key of each table is refused with a value of another type, with its line", () => {
  for (const [name, setting] of DAEMON_KEYS) {
    const [said, ...more] = complaints(`[daemon]\n\n${name} = ${wrongValues[setting.type]}\n`);
    assert.match(said!, new RegExp(`^c:3: ${name}: `));
    assert.equal(more, []);
  }
  for (const [name, setting] of DEVICE_KEYS) {
    const rest = name === "device" ? "" : 'device = "/dev/vg/a"\n';
    const all = complaints(`[[device]]\n${rest}${name} = ${wrongValues[setting.type]}\n`);
    assert.is(all.length, 1);
    assert.match(all[0]!, new RegExp(`^c:${rest === "" ? 2 : 3}: ${name}: `));
  }
  assert.match(
    complaints("[daemon]\nreactors = 17\n")[0]!,
    "'17' is not a whole number from 1 to 16",
  );
  assert.match(complaints("[daemon]\nmax-io = 5000\n")[0]!, "5000 is not a multiple of 4096");
});

test("an option belongs to the file, or is reported as one of the command line", () => {
  for (const { option, internal, commandLineOnly } of OPTIONS) {
    if (commandLineOnly !== true || internal === true) continue;
    const expected = `there is no key '${option}' here. It belongs on blksnapd's command line.`;
    assert.match(complaints(`[daemon]\n${option} = true\n`)[0]!, expected);
  }
});

test("unknown names are reported with their line and a suggestion", () => {
  const cases: readonly (readonly [text: string, ...said: string[]])[] = [
    ["[daemon]\nreactor = 1\n", "c:2: there is no key 'reactor' here. Did you mean reactors?"],
    ["reactors = 1\n", "c:1: there is no 'reactors'. Write it below [daemon]."],
    ["[deamon]\n", "c:1: there is no 'deamon'. Did you mean daemon?"],
    ["[other]\nx = 1\n", "c:1: there is no 'other'. Use [daemon] and [[device]]."],
    ["[device]\n", "c:1: device is not a list of tables. Write [[device]]."],
    ["daemon = 1\n", "c:1: daemon is not a table. Write [daemon]."],
    ['daemon.log-level = "x"\n', "c:1: log-level: 'x' is not a level. See blksnap.toml(5)."],
    ["[daemon]\nreactors = \n", "c:2: this is not TOML: "],
    ["[daemon]\nreactors = 1\nreactors = 2\n", "c:3: this is not TOML: "],
  ];
  for (const [text, ...said] of cases) {
    const all = complaints(text);
    assert.is(all.length, said.length, `${text}: ${all.join(" ")}`);
    for (const [at, one] of said.entries()) assert.ok(all[at]!.startsWith(one), all[at]);
  }
});

test("a device that is named twice, or by an unstable name, is reported", () => {
  const device = (name: string) => `[[device]]\ndevice = "${name}"\n`;
  assert.match(complaints("[[device]]\npersistent = true\n")[0]!, "c:1: [[device]] has no device");
  assert.match(complaints(device("sda"))[0]!, "'sda' is not an absolute path");
  assert.match(complaints(device("/dev/ublkb3"))[0]!, "is a front or an image");
  assert.match(complaints(device("/dev/blksnap/data"))[0]!, "is a front or an image");
  for (const name of ["/dev/sda", "/dev/nvme0n1p2", "/dev/dm-3"]) {
    assert.match(complaints(device(name))[0]!, "may be another disk after the next boot");
  }
  assert.match(complaints(device("/dev/disk/by-uuid/x"))[0]!, "leads to the front");
  assert.equal(complaints(device("/dev/disk/by-id/wwn-0x5")), []);
  const twice = complaints(device("/dev/vg/a") + device("/dev/vg/b") + device("/dev/vg/a"));
  assert.equal(twice, ["c:6: /dev/vg/a is also named at c:1. Keep one."]);
});

test("the metrics socket must differ from the control socket", () => {
  assert.equal(complaints('[daemon]\nsocket = "/s"\nmetrics-socket = "/s"\n'), [
    "c:3: metrics-socket is the same as socket (c:2). Name another path: readers of metrics should not have root's power.",
  ]);
  assert.equal(complaints('[daemon]\nsocket = "/s"\nmetrics-socket = "/m"\n'), []);
});

test("a check has the exit status of a daemon, or of one that cannot attach all devices", () => {
  const status = () => runProgram("--check-config").status;
  const image = join(folder, "a.img");
  writeFileSync(image, "");
  symlinkSync(image, join(folder, "link"));
  write(`[[device]]\ndevice = "${image}"\n`);
  assert.is(status(), 0);
  write(`[[device]]\ndevice = "${image}"\n[[device]]\ndevice = "${join(folder, "link")}"\n`);
  assert.is(status(), 1);
});

test("devices of all files are taken together", () => {
  const device = (name: string, more = "") => `[[device]]\ndevice = "${name}"\n${more}`;
  write(device("/dev/vg/a", "persistent = true\nwait-seconds = 0\n"), {
    "b.toml": device("/dev/vg/b"),
  });
  assert.equal(inForce().config.devices, [
    { device: "/dev/vg/a", persistent: true, waitSeconds: 0, from: `${config}:1` },
    { device: "/dev/vg/b", persistent: false, waitSeconds: 30, from: `${config}.d/b.toml:1` },
  ]);
});

test("files that cannot be read are named; the usual one may be missing", () => {
  assert.match(problemText(inForce().problems[0]!), `${config}: cannot be read: ENOENT`);
  writeFileSync(config, Buffer.of(0x61, 0xff));
  assert.match(problemText(inForce().problems[0]!), "it is not UTF-8");
  writeFileSync(config, Buffer.alloc(2 ** 20 + 1, "#"));
  assert.match(problemText(inForce().problems[0]!), "more than 1048576 bytes");
  rmSync(config);
  mkdirSync(config);
  assert.match(problemText(inForce().problems[0]!), "it is a folder");
});

test("printed settings are an equivalent configuration", () => {
  write('[daemon]\nreactors = 3\npersistent-dir = "/a \\"b\\\\c"\ntrust-reboots = true\n', {
    "d.toml": '[[device]]\ndevice = "/dev/vg/a"\npersistent = true\n',
  });
  const given = parseOptions([`--config=${config}`]);
  const now = settingsInForce(given, {});
  const text = configText(given, now);
  const again = readConfig([{ path: "printed", text }]);
  assert.equal(again.problems, []);
  const { daemon, device, files } = configDocument(given, now);
  assert.equal(
    daemon.filter(({ value }) => value !== null).map(({ key, value }) => [key, value]),
    [...again.config.values].map(([key, { value }]) => [key, value]),
  );
  assert.equal(
    daemon.map(({ key }) => key),
    [...DAEMON_KEYS.keys()],
  );
  assert.equal(
    daemon.filter(({ from }) => from !== "default").map(({ key, from }) => [key, from]),
    [
      ["persistent-dir", `${config}:3`],
      ["reactors", `${config}:2`],
      ["trust-reboots", `${config}:4`],
    ],
  );
  assert.is(files.length, 2);
  assert.equal(device, [
    { device: "/dev/vg/a", persistent: true, wait_seconds: 30, from: `${config}.d/d.toml:1` },
  ]);
  assert.is(again.config.devices[0]?.persistent, true);
});

/** The file of a daemon that serves with the current configuration. */
function served(): ServedFile {
  const file = ServedFile.of(parseOptions([`--state-dir=${join(folder, "state")}`]));
  const { config: now } = inForce();
  const waited = now.devices.map((configured) => {
    return { configured, untilMs: bootClockMs() + 5000, earlierDaemons: 1 };
  });
  file.write({ pid: 7, config: now, waited });
  return file;
}

test("the driver knows the file that the next daemon continues with", () => {
  assert.is(SERVED_FILE_NAME, StateFile.served);
});

test("the state for the next daemon is read as it was written, until its writer removes it", () => {
  write('[daemon]\nreactors = 3\n[[device]]\ndevice = "/dev/vg/a"\nwait-seconds = 9\n');
  const file = served();
  const found = file.read()!;
  assert.equal(found.config, inForce().config);
  assert.equal(
    found.waited?.map(({ configured: { device } }) => device),
    ["/dev/vg/a"],
  );
  file.write({ pid: 7, config: found.config, waited: undefined });
  assert.is(file.read()?.waited, undefined);
  file.removeOf(8);
  assert.ok(file.read(), "another daemon has written it");
  file.removeOf(7);
  assert.is(file.read(), undefined);
});

test("a configuration that is damaged, or from another boot, is not continued", () => {
  write("[daemon]\nreactors = 3\n");
  const file = served();
  const text = readFileSync(file.path, "utf8");
  writeFileSync(file.path, text.slice(0, -2));
  assert.is(file.read(), undefined);
  writeFileSync(file.path, text.replace(/"boot":"[^"]*"/, '"boot":"another"'));
  assert.is(file.read(), undefined);
  for (const [name, other] of [
    ['"devices":[]', '"devices":{}'],
    ['"devices":[]', '"devices":[{"path":"/dev/sda"}]'],
    ['"waited":[]', '"waited":[{"device":"/dev/sda"}]'],
  ]) {
    assert.ok(text.includes(name!), name);
    writeFileSync(file.path, text.replace(name!, other!));
    assert.is(file.read(), undefined, other);
  }
  writeFileSync(file.path, text);
  assert.ok(file.read());
});

test("unknown settings from another version are ignored", () => {
  write("[daemon]\nreactors = 3\nfront-depth = 7\n");
  const file = served();
  const text = readFileSync(file.path, "utf8");
  writeFileSync(file.path, text.replace('"reactors",{"value":3', '"reactors",{"value":99'));
  assert.equal([...file.read()!.config.values.keys()], ["front-depth"]);
});

test("a successor keeps the earlier settings if the files have become invalid", () => {
  write("[daemon]\nreactors = 3\nfront-depth = 7\n");
  const earlier = served().read();
  const take = (...args: string[]) => {
    const given = parseOptions([`--config=${config}`, ...args]);
    return withEarlierConfig(inForce(args), given, {}, earlier);
  };
  assert.is(take("--supervise"), undefined, "the files are right");
  write("[daemon]\nreactors = many\n");
  for (const roles of [["--supervise"], ["--supervised"], []]) {
    const taken = take(...roles, "--front-depth=9")!;
    assert.equal([taken.values["reactors"], taken.values["front-depth"]], ["3", "9"]);
    assert.equal([taken.isEarlier, taken.problems], [true, inForce().problems], "which are logged");
  }
  for (const role of ["--standby", "--print-config", "--doctor"]) assert.is(take(role), undefined);
  const given = parseOptions([`--config=${config}`, "--supervise"]);
  assert.is(withEarlierConfig(inForce(), given, {}, undefined), undefined, "none has served");
});

function runProgram(...args: string[]) {
  const words = [program, `--config=${config}`, ...args];
  return spawnSync(process.execPath, words, { encoding: "utf8", env: {} });
}

test("a daemon does not start on a wrong configuration, and names each mistake", () => {
  write("[daemon]\nreactor = 2\nstandbys = 9\n");
  for (const use of [["--supervise"], ["--standby"], ["--print-config"], ["--doctor"]]) {
    use.push(`--state-dir=${join(folder, "state")}`);
    const { status, stdout, stderr } = runProgram(...use);
    assert.equal([status, stdout], [2, ""], use[0]);
    assert.equal(stderr.split("\n"), [
      `blksnapd: ${config}:2: there is no key 'reactor' here. Did you mean reactors?`,
      `blksnapd: ${config}:3: standbys: '9' is not a whole number from 0 to 8. See blksnap.toml(5).`,
      "",
    ]);
  }
  const checked = runProgram("--check-config");
  const report = JSON.parse(checked.stdout);
  assert.equal([checked.status, report.starts], [2, false]);
  assert.equal(
    report.problems.map(({ line, severity }: { line: number; severity: string }) => [
      line,
      severity,
    ]),
    [
      [2, "error"],
      [3, "error"],
    ],
  );
  write("[daemon]\nreactors = 2\n");
  const printed = runProgram("--print-config", "--json", "--front-depth=5");
  assert.equal([printed.status, printed.stderr], [0, ""]);
  const values = new Map(
    JSON.parse(printed.stdout).daemon.map((one: { key: string; value: unknown }) => [
      one.key,
      one.value,
    ]),
  );
  assert.equal([values.get("reactors"), values.get("front-depth")], [2, 5]);
});

test.run();
