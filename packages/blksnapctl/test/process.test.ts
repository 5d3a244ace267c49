import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { globalOptions, verbs } from "../dist/catalog.js";
import { run } from "../dist/run.js";
import type { Environment } from "../dist/verb.js";
import { program, startHarness, terminals } from "./harness.js";

const page = readFileSync(join(import.meta.dirname, "../man/blksnapctl.8"), "utf8");

test("the man page has every verb with all of its options", () => {
  for (const { name, options } of verbs) {
    const start = page.indexOf(`.SS ${name}\n`);
    assert.ok(start > 0, name);
    const section = page.slice(start, page.indexOf("\n.S", start + 4));
    for (const [option, { short }] of Object.entries(options)) {
      const roff = option.replaceAll("-", "\\-");
      assert.ok(section.includes(`\\-\\-${roff}`), `${name} --${option}`);
      if (short !== undefined) assert.ok(section.includes(`\\-${short}`), `${name} -${short}`);
    }
  }
  for (const option of Object.keys(globalOptions)) assert.match(page, `\\-\\-${option}`);
  for (const status of ["0", "1", "2"]) assert.match(page, `.B ${status}\n`);
});

test("man reports no error in the page", () => {
  if (!existsSync("/usr/bin/groff")) return;
  const { stderr } = spawnSync("groff", ["-man", "-Tascii", "-ww", "-z"], { input: page });
  assert.is(stderr.toString(), "");
});

test("a reader that closes the pipe ends the command silently", async () => {
  const harness = await startHarness();
  const child = harness.start("--help");
  child.child.stdout!.destroy();
  const { status, signal, err } = await child.outcome;
  assert.equal([status, signal, err], [0, null, ""]);
  await harness.stop();
});

test("a command that has begun something ends it without a reader of its output", async () => {
  const harness = await startHarness();
  await harness.driver.attach("/dev/loop0");
  const image = join(harness.dir, "image");
  writeFileSync(image, Buffer.alloc(64 * 2 ** 20));
  const snapshotInfo = harness.driver.snapshotInfo.bind(harness.driver);
  harness.driver.snapshotInfo = async (device) => {
    const info = await snapshotInfo(device);
    return info.image === null ? info : { ...info, image };
  };
  const backups = join(harness.dir, "backups");
  const child = harness.start("export", "-d", "/dev/loop0", "--to", backups, "--json");
  child.child.stdout!.destroy();
  const { status, err } = await child.outcome;
  assert.equal([status, err], [0, ""]);
  assert.is(harness.driver.snapshots.size, 0);
  assert.match(await harness.ok("list", "--from", backups), "  full  ");
  const { stdout, stderr, ...full } = spawnSync(
    "sh",
    ["-c", 'exec "$@" > /dev/full', "sh", process.execPath, program, "list", "--from", backups],
    { encoding: "utf8" },
  );
  assert.is(full.status, 1, stdout);
  assert.match(stderr, /^blksnapctl: can't write the output: /);
  await harness.stop();
});

test("without a terminal on standard error a command continues", async () => {
  const harness = await startHarness();
  const child = harness.start("attach", "-d", "/dev/none");
  child.child.stderr!.destroy();
  assert.is((await child.outcome).status, 1);
  await harness.stop();
});

test("a command that shows events ends with the reader of its output", async () => {
  const harness = await startHarness();
  harness.events.push({ event: "snapshot_not_persistent", severity: "error", id: "x" });
  const child = harness.start("events", "--all", "--follow");
  child.child.stdout!.destroy();
  const { status, err } = await child.outcome;
  assert.equal([status, err], [0, ""]);
  await harness.stop();
});

test("output that cannot be written is a failure", () => {
  const script = 'exec "$0" "$1" --help > /dev/full';
  const { status, stderr } = spawnSync("sh", ["-c", script, process.execPath, program]);
  assert.is(status, 1);
  assert.match(stderr.toString(), /^blksnapctl: can't write the output: /);
});

test("a terminal gets a picture and bold titles, unless NO_COLOR is set or it knows none", async () => {
  const harness = await startHarness();
  await harness.driver.attach("/dev/loop0");
  async function onTerminal(environment: Environment): Promise<string> {
    let out = "";
    await run(["diff", "-d", "/dev/loop0", "--since", "0"], {
      environment: { BLKSNAP_SOCKET: harness.socketPath, ...environment },
      columns: 40,
      writeOut: (text) => {
        out += text;
      },
      writeError: () => undefined,
      untilInterrupted: () => new AbortController().signal,
      streams: terminals,
    });
    return out;
  }
  assert.ok((await onTerminal({})).startsWith("\x1b[1m/dev/loop0\x1b[0m  0 B of 64.0 MiB"));
  const plain = await onTerminal({ NO_COLOR: "1" });
  assert.is(await onTerminal({ TERM: "dumb" }), plain);
  assert.not.match(plain, "\x1b");
  assert.match(plain, `\n[${" ".repeat(38)}]\n`);
  await harness.stop();
});

test("control characters in names never reach a terminal, and scripts get names unchanged", async () => {
  const harness = await startHarness();
  const evil = "/dev/a\x1b]0;gone\x07\u009b2J\x1b[2K\x1b[8m\x1b[1mé";
  harness.driver.devices.set(evil, 2 ** 20);
  await harness.driver.attach(evil);
  async function shown(columns: number | undefined, ...words: string[]): Promise<string> {
    let text = "";
    const write = (part: string | Uint8Array): void => {
      text += part;
    };
    await run(words, {
      environment: { BLKSNAP_SOCKET: harness.socketPath, NO_COLOR: "1" },
      columns,
      writeOut: write,
      writeError: write,
      untilInterrupted: () => new AbortController().signal,
      streams: terminals,
    });
    return text;
  }
  const told = "/dev/a\\x1b]0;gone\\x07\\x9b2J\\x1b[2K\\x1b[8m\x1b[1mé";
  assert.match(await shown(80, "status"), told);
  assert.match(await shown(undefined, "status"), evil);
  assert.match(await shown(undefined, "snapshot_info", "-d", `${evil}x`), `${told}x`);
  await harness.stop();
});

test("the program's status and outputs are those of the command: done, failed, wrong usage", async () => {
  const harness = await startHarness();
  for (const words of [
    ["version"],
    ["version", "--json"],
    ["cbtinfo", "-d", "/dev/loop0"],
    ["cbtinfo"],
  ]) {
    assert.equal(
      await harness.start(...words).outcome,
      await harness.run(...words),
      words.join(" "),
    );
  }
  const ended = await Promise.all(
    [["version"], ["cbtinfo", "-d", "/dev/loop0"], ["cbtinfo"]].map((words) =>
      harness.run(...words),
    ),
  );
  assert.equal(
    ended.map(({ status }) => status),
    [0, 1, 2],
  );
  await harness.stop();
});

test("the example of the README runs", async () => {
  const harness = await startHarness();
  const example = join(import.meta.dirname, "../examples/backup.mjs");
  const out = await new Promise<string>((done, fail) => {
    const env = { ...process.env, BLKSNAP_SOCKET: harness.socketPath };
    execFile(process.execPath, [example, "/dev/loop0"], { env }, (error, stdout) =>
      error === null ? done(stdout) : fail(error),
    );
  });
  assert.match(out, /image: \/dev\/ublkb\d+/);
  assert.is(harness.driver.snapshots.size, 0);
  await harness.stop();
});

test.run();
