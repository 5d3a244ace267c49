import childProcess from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "@blksnap/testing";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isSharedRoot, Supervisor } from "../dist/supervisor.js";

interface World {
  readonly folder: string;
  readonly supervisor: Supervisor;
  /** Warnings of the log. */
  readonly warnings: readonly { msg: string; why?: string }[];
  /** Messages to the service manager. */
  readonly told: readonly string[];
  /** Its exit status. */
  ended(): number | undefined;
  set(name: string, text?: string): void;
  unset(name: string): void;
  text(name: string): string | undefined;
  /** The daemon that serves; waits for one other than `pid`. */
  serving(otherThan?: number): Promise<{ pid: number; version: string }>;
  /** Waits until a standby is loaded, in addition to the known ones. */
  standby(known?: readonly number[]): Promise<number>;
}

/** Where a test waits for standbys. */
const QUICK = { standbyDelayMs: 100, shortLifeMs: 50 };

/** @param pace of the supervisor; that of users where something has to happen before a standby is started */
async function withWorld(
  body: (world: World) => Promise<void>,
  pace?: typeof QUICK,
  standbys = 1,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-supervisor-"));
  const path = (name: string) => join(folder, name);
  const text = (name: string) =>
    existsSync(path(name)) ? readFileSync(path(name), "utf8") : undefined;
  let status: number | undefined;
  writeFileSync(path("version"), "1");
  const program = [process.execPath, join(import.meta.dirname, "supervisor-daemon.js"), folder];
  const told: string[] = [];
  const done = (end: number): void => {
    status = end;
  };
  const warnings: { level: number; msg: string; why?: string }[] = [];
  const logger = pino({ level: "warn" }, { write: (line) => warnings.push(JSON.parse(line)) });
  const manager = {
    ready: (text: string) => told.push(`ready: ${text}`),
    status: (text: string) => told.push(text),
    stopping: () => told.push("stopping"),
  };
  const supervisor = new Supervisor(program, standbys, logger, done, manager, [], pace);
  const who = () => {
    const [pid, version = ""] = (text("serving") ?? "0").split(" ");
    return { pid: Number(pid), version };
  };
  const loaded = () =>
    readdirSync(folder).flatMap((name) => /^ready-(\d+)$/.exec(name)?.slice(1).map(Number) ?? []);
  try {
    await body({
      folder,
      supervisor,
      warnings,
      told,
      ended: () => status,
      set: (name, value = "") => writeFileSync(path(name), value),
      unset: (name) => rmSync(path(name)),
      text,
      serving: async (otherThan = 0) => {
        await eventually("a daemon serves", () => who().pid !== otherThan && who().version !== "");
        return who();
      },
      standby: async (known = []) => {
        const fresh = () => loaded().find((pid) => !known.includes(pid));
        await eventually("a standby is loaded", () => fresh() !== undefined);
        return fresh() ?? 0;
      },
    });
  } finally {
    rmSync(path("refuse"), { force: true });
    supervisor.signal("SIGTERM");
    await eventually("the supervisor ends", () => status !== undefined);
    rmSync(folder, { recursive: true });
  }
}

test("a standby continues after a kill, and another one is started", () =>
  withWorld(async ({ supervisor, serving, standby }) => {
    supervisor.start();
    const first = await serving();
    const ready = await standby();
    process.kill(first.pid, "SIGKILL");
    assert.is((await serving(first.pid)).pid, ready);
    assert.ok(await standby([ready]));
  }, QUICK));

test("the service manager learns when devices are served, when not, and of the end", () =>
  withWorld(async ({ supervisor, told, serving, standby, ended }) => {
    supervisor.start();
    const first = await serving();
    await eventually("it is ready", () => told.length === 1);
    const ready = await standby();
    process.kill(first.pid, "SIGKILL");
    await serving(first.pid);
    await eventually("it is ready again", () => told.length === 3);
    supervisor.signal("SIGTERM");
    await eventually("it has ended", () => ended() !== undefined);
    assert.equal(told, [
      `ready: pid ${first.pid} serves`,
      `pid ${first.pid} has ended, devices wait for the next daemon`,
      `ready: pid ${ready} serves`,
      "stopping",
    ]);
  }, QUICK));

test("all standbys continue, one after the other", () =>
  withWorld(
    async ({ supervisor, serving, standby }) => {
      supervisor.start();
      const first = await serving();
      const ready = [await standby()];
      ready.push(await standby(ready));
      process.kill(first.pid, "SIGKILL");
      const second = await serving(first.pid);
      process.kill(second.pid, "SIGKILL");
      const third = await serving(second.pid);
      assert.equal([second.pid, third.pid].sort(), ready.sort());
    },
    QUICK,
    2,
  ));

test("a daemon that is killed before there is a standby is restarted", () =>
  withWorld(async ({ supervisor, serving, ended }) => {
    supervisor.start();
    const first = await serving();
    process.kill(first.pid, "SIGKILL");
    const second = await serving(first.pid);
    assert.is.not(second.pid, first.pid);
    assert.is(ended(), undefined);
  }));

test("without memory to fork, starts are retried, and a standby's failure never ends the active daemon", () =>
  withWorld(async ({ supervisor, serving, ended, warnings }) => {
    const { spawn } = childProcess;
    let failures = 0;
    const failing = (left: number): void => {
      childProcess.spawn = ((...args: Parameters<typeof spawn>) => {
        if (failures === left) return spawn(...args);
        failures++;
        // Node throws like this for all but a few errors.
        throw Object.assign(new Error("spawn ENOMEM"), { code: "ENOMEM", errno: -12 });
      }) as typeof spawn;
      syncBuiltinESMExports();
    };
    try {
      supervisor.start();
      const first = await serving();
      failing(1);
      await eventually("a standby was not made", () => failures === 1);
      assert.is((await serving()).pid, first.pid);
      await eventually("it is told", () => warnings.some(({ why }) => why === "spawn ENOMEM"));
      failing(3);
      process.kill(first.pid, "SIGKILL");
      assert.is.not((await serving(first.pid)).pid, first.pid);
      assert.is(ended(), undefined);
    } finally {
      childProcess.spawn = spawn;
      syncBuiltinESMExports();
    }
  }));

test("an upgrade hands over to a daemon started from the current program", () =>
  withWorld(async ({ supervisor, serving, standby, set }) => {
    supervisor.start();
    const first = await serving();
    const old = await standby();
    set("version", "2");
    process.kill(first.pid, "SIGUSR2");
    const next = await serving(first.pid);
    assert.is(next.version, "2");
    assert.is.not(next.pid, old);
    // The old standby is no longer needed.
    await eventually("it has ended", () => !existsSync(`/proc/${old}`));
  }, QUICK));

test("if a new program does not become ready, the old daemon continues", () =>
  withWorld(async ({ supervisor, serving, standby, set, unset, text }) => {
    supervisor.start();
    const first = await serving();
    const old = await standby();
    set("fail-ready");
    process.kill(first.pid, "SIGUSR2");
    // The file exists before its text does.
    await eventually("it is told", () => (text("unprepared") ?? "") !== "");
    assert.is(text("unprepared"), "it ended with 8");
    unset("fail-ready");
    assert.is((await serving()).pid, first.pid);
    process.kill(first.pid, "SIGKILL");
    assert.is((await serving(first.pid)).pid, old);
  }, QUICK));

test("repeated refusals of a standby are logged once per reason", () =>
  withWorld(async ({ supervisor, warnings, serving, set, text }) => {
    const [first, second] = ["/c:2: there is no key 'x' here", "/c:3: it is not TOML"];
    set("refusal", first);
    set("fail-ready");
    supervisor.start();
    await serving();
    const failures = (least: number) =>
      eventually("standbys fail", () => (text("failed") ?? "").length >= least);
    await failures(2);
    set("refusal", second);
    await failures(3);
    await eventually("the other reason is said", () => warnings.length >= 2);
    assert.equal(
      warnings.map(({ why }) => why),
      [`2: ${first}`, `2: ${second}`],
    );
  }, QUICK));

test("a refused upgrade reports the reason", () =>
  withWorld(async ({ supervisor, serving, standby, set, text }) => {
    supervisor.start();
    const { pid } = await serving();
    await standby();
    set("refusal", "/c:2: there is no key 'x' here");
    set("fail-ready");
    process.kill(pid, "SIGUSR2");
    await eventually("it is told", () => (text("unprepared") ?? "") !== "");
    assert.is(text("unprepared"), "it ended with 2: /c:2: there is no key 'x' here");
  }, QUICK));

test("if a new program cannot serve, the old one resumes", () =>
  withWorld(async ({ supervisor, serving, standby, set }) => {
    supervisor.start();
    const first = await serving();
    const old = await standby();
    set("fail-start");
    set("version", "bad");
    process.kill(first.pid, "SIGUSR2");
    const next = await serving(first.pid);
    assert.equal(next, { pid: old, version: "1" });
  }, QUICK));

test("a request to end may be refused, and then standbys are kept as before", () =>
  withWorld(async ({ supervisor, serving, standby, set, text, ended }) => {
    supervisor.start();
    const first = await serving();
    set("refuse");
    supervisor.signal("SIGTERM");
    await eventually("it is refused", () => text("refused") === "SIGTERM");
    const ready = await standby();
    process.kill(first.pid, "SIGKILL");
    assert.is((await serving(first.pid)).pid, ready);
    await standby([ready]);
    assert.is(ended(), undefined);
  }, QUICK));

test("a request to end that arrives between two daemons reaches the next one", () =>
  withWorld(async ({ supervisor, serving, ended }) => {
    supervisor.start();
    const { pid } = await serving();
    process.kill(pid, "SIGKILL");
    await eventually("it is dead", () => !existsSync(`/proc/${pid}`));
    supervisor.signal("SIGTERM");
    await eventually("the next one has ended", () => ended() !== undefined);
    assert.is(ended(), 0);
  }));

test("a daemon that cannot start ends the supervisor with its status", () =>
  withWorld(async ({ supervisor, set, ended }) => {
    set("version", "bad");
    set("fail-start");
    supervisor.start();
    await eventually("the supervisor has ended", () => ended() !== undefined);
    assert.is(ended(), 9);
  }));

test("shared and private roots are distinguished", () => {
  assert.ok(isSharedRoot("26 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"));
  assert.not(isSharedRoot("26 1 8:1 / / rw,relatime - ext4 /dev/vda1 rw\n"));
});

test.run();
