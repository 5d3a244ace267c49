/** Help, its examples, and completion: all generated from the catalogue, and all work. */
import { spawn, spawnSync } from "node:child_process";
import { chmod, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackupStore, exportToStore } from "@blksnap/backup";
import { BlksnapClient } from "@blksnap/client";
import { FakeS3 } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { globalOptions, verbs } from "../dist/catalog.js";
import { EXAMPLE_ID, exampleCommands } from "./examples.js";
import { eventually, type Harness, type Outcome, program, startHarness } from "./harness.js";

/** For examples with s3://. */
let s3: FakeS3;
test.before(async () => {
  s3 = await FakeS3.listen();
});
test.after(() => s3.close());

let harness: Harness;
test.before.each(async () => {
  harness = await startHarness();
});
test.after.each(() => harness.stop());

test("the program and each verb have help, with examples", async () => {
  const all = await harness.ok("help");
  assert.is(await harness.ok("--help"), all);
  assert.is(await harness.ok("-h"), all);
  assert.match(all, "completion");
  for (const verb of verbs) {
    assert.match(all, new RegExp(`^  ${verb.name} `, "m"));
    const text = await harness.ok(verb.name, "--help");
    for (const [command, what] of verb.examples) {
      assert.match(text, `\n  # ${what}\n  ${command}\n`, "both lines can be copied");
    }
    for (const [option, { short }] of Object.entries({ ...verb.options, ...globalOptions })) {
      assert.match(text, new RegExp(`${short === undefined ? "" : `-${short}, `}--${option}\\b`));
    }
  }
  assert.is(await harness.ok("help", "attach"), await harness.ok("attach", "-h"));
  // Users often ask for help after a mistake.
  assert.is(await harness.ok("attach", "--bogus", "-h"), await harness.ok("attach", "-h"));
  assert.match(await harness.ok("--version"), /^\d+\.\d+\.\d+\n$/);
});

test("help explains each overflow policy, and names the default", async () => {
  const text = (await harness.ok("snapshot_create", "--help")).replace(/\s+/g, " ");
  assert.match(text, "break-snapshot (default): the snapshot; the write continues");
  assert.match(text, "the image returns EIO where old data is lost");
  assert.match(text, "fail-writes: the write, with ENOSPC");
  assert.match(
    text,
    "block-writes[=SECONDS]: nothing at first; writes and their programs wait for space",
  );
  assert.match(text, "30 s by default, then the snapshot breaks");
});

/** Other programs in examples; a stub records its arguments. */
const STUBS = ["mount", "jq"];

async function stubFolder(): Promise<string> {
  const folder = join(harness.dir, "bin");
  await mkdir(folder);
  const put = async (name: string, script: string): Promise<void> => {
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(folder, name), 0o755);
  };
  for (const name of STUBS) await put(name, `cat > /dev/null\necho ${name} "$@"`);
  await put("blksnapctl", `exec '${process.execPath}' '${program}' "$@"`);
  // The daemon's program, for doctor and config.
  const report =
    '{"version":"0.1.0","path":"c","files":["c"],"devices":[],"checks":[],"problems":[]}';
  await put("blksnapd", `echo '${report}'`);
  return folder;
}

type Ended = Pick<Outcome, "status" | "out" | "err">;

/** Needs a shell or its own environment; other examples run within this process, which is faster. */
const OF_SHELL = /[()|;&>']|s3:/;

/** Runs it like a shell in the folder of the test. */
async function runExample(text: string, folder: string, id: string): Promise<Ended> {
  if (OF_SHELL.test(text)) return runInShell(text, folder, id);
  const [program, ...words] = text.replaceAll("$ID", id).split(" ");
  assert.is(program, "blksnapctl");
  const { PATH } = process.env;
  const cwd = process.cwd();
  process.env["PATH"] = `${folder}:/usr/bin:/bin`;
  process.chdir(harness.dir);
  try {
    return await harness.run(...words);
  } finally {
    process.chdir(cwd);
    process.env["PATH"] = PATH;
  }
}

function runInShell(text: string, folder: string, ID: string): Promise<Ended> {
  const child = spawn("sh", ["-e", "-c", `${text}\nwait`], {
    cwd: harness.dir,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      BLKSNAP_SOCKET: harness.socketPath,
      ID,
      ...s3.environment,
      PATH: `${folder}:/usr/bin:/bin`,
    },
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (part) => {
    out += part;
  });
  child.stderr.on("data", (part) => {
    err += part;
  });
  return new Promise((done) => child.on("close", (status) => done({ status, out, err })));
}

/** As many bytes as the fake driver's devices have. */
const CAPACITY_BYTES = 64 * 2 ** 20;
/** Verbs that work on backups and need some. */
const OF_BACKUPS = ["restore", "list", "verify", "prune", "gc"];

/** Images that can be read; and backups if the verb needs some. */
async function prepareBackups(verbName: string): Promise<void> {
  const { driver, dir, socketPath } = harness;
  const image = join(dir, "image");
  await writeFile(image, "");
  await truncate(image, CAPACITY_BYTES);
  const snapshotInfo = driver.snapshotInfo.bind(driver);
  driver.snapshotInfo = async (device) => {
    const info = await snapshotInfo(device);
    return info.image === null ? info : { ...info, image };
  };
  if (!OF_BACKUPS.includes(verbName)) return;
  await driver.attach("/dev/vg/data");
  const store = await BackupStore.openOrCreate(join(dir, "backups"));
  const client = new BlksnapClient({ socketPath });
  const more = { stores: ["memory:"], limitBytes: 2 ** 20, wanted: { kind: "full" } as const };
  await exportToStore(store, { client, device: "/dev/vg/data", ...more });
}

/** An environment in which each example makes sense: some need a free device, others a tracked one with a snapshot. */
async function preparedSnapshot(verbName: string): Promise<string> {
  const { driver } = harness;
  for (const device of ["/dev/sdb", "/dev/sdc", "/dev/sdd", "/dev/vg/data"]) {
    driver.devices.set(device, 64 * 2 ** 20);
  }
  if (verbName === "detach") driver.remembered.add("/dev/sdb");
  if (verbName === "nbd") {
    await harness.ok("nbd", "open", "--tcp", "192.0.2.1", "--tls-certs", "/etc/pki/nbd");
  }
  // It does not end while anything is attached.
  if (verbName === "daemon") return EXAMPLE_ID;
  if (verbName === "export" || OF_BACKUPS.includes(verbName)) await prepareBackups(verbName);
  const wantsFree = ["attach", "detach", "snapshot_create", "export"].includes(verbName);
  await driver.attach("/dev/vg/data");
  await driver.attach("/dev/loop0");
  const devices = wantsFree ? [] : ["/dev/sdb"];
  const { id } = await driver.snapshotCreate({ devices, stores: ["memory:"], limitBytes: 2 ** 20 });
  if (["snapshot_add", "snapshot_take"].includes(verbName) || wantsFree) return id;
  await driver.snapshotTake(id);
  driver.snapshots.get(id)!.events.push({
    event: "corrupted",
    device: "/dev/sdb",
    major: 8,
    minor: 16,
    errno: 28,
  });
  return id;
}

/** These need a block device: the scenario `mount` runs them. */
const ON_DEVICES = ["mount", "umount"];

for (const verb of verbs.filter(({ name }) => !ON_DEVICES.includes(name))) {
  for (const [index, [text]] of verb.examples.entries()) {
    test(`the example works: ${text}`, async () => {
      const id = await preparedSnapshot(verb.name);
      const { values } = exampleCommands(verb)[index]!;
      if (verb.name === "diff") {
        // The example needs more snapshots than the fake has taken.
        for (let i = 0; i < Number(values.get("since")?.[0]); i++) await takeOnceMore();
      }
      const ended = runExample(text, await stubFolder(), id);
      if (values.has("all")) {
        if (values.has("follow")) await eventually("a reader", () => harness.events.sleepers > 0);
        harness.events.end();
      } else if (values.has("follow")) {
        const { events } = harness.driver.snapshots.get(id)!;
        await eventually("a follower", () => events.sleepers > 0);
        await harness.driver.snapshotDestroy(id);
      }
      const { status, out, err } = await ended;
      assert.equal([status, err], [0, ""], `${text}: ${out}${err}`);
      if (text.startsWith("mount"))
        assert.match(out, /^mount -o ro \/dev\/ublkb\d+ \/mnt\/image\n$/);
    });
  }
}

/** Replaces an example's value: by the real snapshot, or a folder of the test. */
function ownValue(value: string, id: string): string {
  if (value === EXAMPLE_ID) return id;
  return ["sdb.map", "backups", "restored.img"].includes(value) ? join(harness.dir, value) : value;
}

for (const verb of verbs.filter(({ name }) => !ON_DEVICES.includes(name))) {
  test(`${verb.name} prints only JSON with --json`, async () => {
    const id = await preparedSnapshot(verb.name);
    const { values } = exampleCommands(verb)[0]!;
    if (verb.name === "diff") {
      for (let i = 0; i < Number(values.get("since")?.[0]); i++) await takeOnceMore();
    }
    const words = [...values].flatMap(([name, given]) => {
      if (name === "json" || name === "follow") return [];
      if (name === verb.action?.name) return given;
      return given.map((value) =>
        value === "" ? `--${name}` : `--${name}=${ownValue(value, id)}`,
      );
    });
    const PATH = process.env["PATH"];
    process.env["PATH"] = `${await stubFolder()}:${PATH}`;
    const out = await harness.ok(verb.name, ...words, "--json");
    process.env["PATH"] = PATH;
    for (const line of out.trimEnd().split("\n")) assert.type(JSON.parse(line), "object");
  });
}

async function takeOnceMore(): Promise<void> {
  const { driver } = harness;
  for (const id of driver.snapshots.keys()) await driver.snapshotDestroy(id);
  const devices = ["/dev/sdb"];
  const { id } = await driver.snapshotCreate({ devices, stores: ["memory:"], limitBytes: 2 ** 20 });
  await driver.snapshotTake(id);
}

async function offered(...words: string[]): Promise<string[]> {
  const asked = await harness.run("--complete", ...words);
  assert.is(asked.err, "");
  return asked.out.split("\n");
}

test("completion offers every verb, and every option of each", async () => {
  const names = await offered("");
  for (const { name } of verbs) assert.ok(names.includes(name), name);
  for (const verb of verbs) {
    const options = await offered(verb.name, "--");
    for (const option of Object.keys({ ...verb.options, ...globalOptions })) {
      assert.ok(options.includes(`--${option}`), `${verb.name} --${option}`);
    }
    const others = verbs.filter(({ name }) => name !== verb.name).map(({ name }) => name);
    assert.equal(
      options.filter((option) => others.includes(option)),
      [],
    );
  }
});

test("completion knows devices, snapshots and values, and survives half a line", async () => {
  assert.equal(await offered("daemon", ""), ["upgrade", "stop", ""]);
  assert.equal(await offered("completion", "b"), ["bash", ""]);
  await harness.driver.attach("/dev/loop0");
  const stores = ["memory:"];
  const { id } = await harness.driver.snapshotCreate({ devices: [], stores, limitBytes: 2 ** 20 });
  assert.ok((await offered("detach", "--device", "")).includes("/dev/loop0"));
  assert.equal((await offered("snapshot_take", "-i", id.slice(0, 4))).filter(Boolean), [id]);
  assert.ok((await offered("snapshot_create", "--on-overflow", "f")).includes("fail-writes"));
  assert.ok((await offered("snapshot_info", "--field", "")).includes("error_code"));
  assert.ok((await offered("snapshot_create", "-d", "/dev/sdb", "/dev/l")).includes("/dev/loop0"));
  await offered("snapshot_create", "--no-such", "--", "x", "");
});

/** Whether this machine's shell accepts the script, and its completions. */
function shellOffers(script: string, answer = `'${process.execPath}' '${program}' "$@"`): string[] {
  const text = `${script}
COMP_WORDS=(blksnapctl daemon up); COMP_CWORD=2
_blksnapctl; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const blksnapctl = `blksnapctl() { ${answer}; }`;
  const { stdout, stderr } = spawnSync("bash", ["-c", `${blksnapctl}\n${text}`], {
    encoding: "utf8",
  });
  assert.is(stderr, "");
  return stdout.trimEnd().split("\n");
}

test("completion prints a script for the named or current shell", async () => {
  const bash = await harness.ok("completion", "bash");
  assert.equal(shellOffers(bash), ["upgrade"]);
  assert.equal(shellOffers(bash, "printf '/dev/*\\n/dev/a b\\n'"), ["/dev/*", "/dev/a b"]);
  assert.equal(shellOffers(bash, "true"), [""], "the shell offers files");
  assert.match(await harness.ok("completion", "zsh"), /^#compdef blksnapctl$/m);
  assert.match(await harness.ok("completion", "fish"), /^complete -c blksnapctl /m);
  const unknown = await harness.run("completion", "tcsh");
  assert.equal([unknown.status, unknown.out], [2, ""]);
  assert.match(unknown.err, "Give bash or zsh or fish");
});

test.run();
