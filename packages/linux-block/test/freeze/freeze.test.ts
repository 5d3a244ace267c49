import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FreezeGroup, type FreezeSystem } from "@blksnap/linux-block";
import { apartProgram, createMemoryFile, PromiseRing } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { FreezeGuard } from "../../dist/freeze/freeze-guard.js";
import { FreezeFixture, guards, openFiles, sessionProcesses, until } from "./freeze-support.js";

const LONG_MS = 60_000;
const test = suite("freeze");
let fixture: FreezeFixture;
let log: string[];
const victims: ChildProcess[] = [];

test.before.each(() => {
  fixture = new FreezeFixture();
  log = [];
});
test.after.each(async () => {
  for (const victim of victims.splice(0)) victim.kill("SIGKILL");
  await until("no guard is left", () => guards().length === 0);
  fixture.remove();
});

function makeGroup(
  holdMs = LONG_MS,
  isRequired = false,
  system: FreezeSystem = fixture.system,
): FreezeGroup {
  const note = (_: object, message: string) => void log.push(message);
  const logger = { warn: note, error: note };
  return new FreezeGroup({ logger, holdMs, isRequired, system });
}

async function rejection(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  return await work.then(
    () => ({ code: "none", message: "it succeeded" }),
    (error) => error,
  );
}

function isHeld(group: FreezeGroup): boolean {
  try {
    group.assertHeld();
    return true;
  } catch (error) {
    assert.match((error as Error).message, /thawed before/);
    return false;
  }
}

function thawedInReverse(): boolean {
  return fixture.calls().slice(-3).join() === "--unfreeze 0,--unfreeze 1,--unfreeze 2";
}

/** The group's own wait for its guard has a limit, which a stalled machine can exceed. */
async function thaw(group: FreezeGroup): Promise<void> {
  await group.thaw();
  await until("no guard is left", () => guards().length === 0);
}

/** To all of its processes at once: signalled one by one, it would continue with the result of the first one's death. */
function signalSession(guard: number, signal: NodeJS.Signals): void {
  process.kill(-guard, signal);
}

test("the file system mounted last is frozen first, and thawed last", async () => {
  fixture.add("a", "b", "c");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  assert.equal(fixture.calls(), ["--freeze 2", "--freeze 1", "--freeze 0"]);
  group.assertHeld();
  await thaw(group);
  assert.equal(fixture.calls().slice(3), ["--unfreeze 0", "--unfreeze 1", "--unfreeze 2"]);
  assert.equal(guards(), []);
  assert.equal(log, []);
});

test("mount points may have any name", async () => {
  const bytes = Buffer.from([0x2d, 0xff, 0xfe, 0x5c, 0x6e]);
  fixture.add(" -a b ", "new\nline\n", "$(false) `x` 'q' \"d\" ;*", "\\040\t#", bytes, "ü");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  await thaw(group);
  assert.equal(
    fixture.calls().sort().join(),
    "--freeze,--unfreeze"
      .split(",")
      .flatMap((verb) => [0, 1, 2, 3, 4, 5].map((index) => `${verb} ${index}`))
      .join(),
  );
  assert.equal(log, []);
});

test("without mounts nothing is started", async () => {
  fixture.add("a");
  const group = makeGroup();
  await group.freeze(["250:99"], LONG_MS);
  group.assertHeld();
  assert.equal(guards(), []);
  await thaw(group);
  assert.equal(fixture.calls(), []);
});

test("without devices nothing is searched", async () => {
  fixture.add("a");
  const readElsewhere = () => Promise.reject(new Error("all mount namespaces were searched"));
  const group = makeGroup(LONG_MS, true, { ...fixture.system, readElsewhere });
  await group.freeze([], LONG_MS);
  group.assertHeld();
  assert.equal(group.report, []);
  await thaw(group);
  assert.equal(fixture.calls(), []);
});

function states(group: FreezeGroup): string[] {
  return group.report.map(({ state, why }) => `${state}: ${why}`);
}

test("a file system frozen by another program counts and stays frozen; one that cannot be frozen is synced and reported", async () => {
  const [, foreign, vfat] = fixture.add("own", "foreign", "vfat");
  fixture.fail("--freeze", foreign!, "Device or resource busy");
  fixture.fail("--freeze", vfat!, "Operation not supported");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  await thaw(group);
  assert.equal(fixture.calls("calls").slice(3), ["--unfreeze 0"]);
  assert.match(log.join("\n"), /vfat \(ext4\) is synced, not frozen for the snapshot: EOPNOTSUPP$/);
  assert.equal(states(group), [
    "frozen: null",
    "frozen: frozen already, by another program",
    "synced: EOPNOTSUPP",
  ]);
});

test("all are synced before any is frozen, and those that cannot be frozen are synced again afterwards", async () => {
  const [, vfat] = fixture.add("a", "vfat", "c");
  fixture.fail("--freeze", vfat!, "Operation not supported");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  await thaw(group);
  assert.equal(fixture.synced, [
    { index: 2, frozen: [] },
    { index: 1, frozen: [] },
    { index: 0, frozen: [] },
    { index: 1, frozen: [2, 0] },
  ]);
});

test("one successful sync counts, whatever the other one does; without any it does not", async () => {
  const systems = fixture.add("first fails", "second hangs", "both fail");
  for (const one of systems) fixture.fail("--freeze", one, "Operation not supported");
  fixture.syncStatus.set(0, [-5, 0]);
  fixture.syncStatus.set(1, [0, -110]);
  fixture.syncStatus.set(2, [-110, -5]);
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  await thaw(group);
  assert.equal(states(group), [
    "synced: EOPNOTSUPP",
    "synced: EOPNOTSUPP",
    "not: EOPNOTSUPP, and its sync: EIO",
  ]);
});

test("a file system that an error has shut down does not stop a take", async () => {
  const [broken] = fixture.add("broken", "b", "c");
  fixture.fail("--freeze", broken!, "Input/output error");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  group.assertHeld();
  await thaw(group);
  assert.equal(states(group), ["not: EIO", "frozen: null", "frozen: null"]);
  assert.equal(fixture.calls("calls").slice(3), ["--unfreeze 1", "--unfreeze 2"]);
});

test("if freezing is required, a failure names errno and mount point, and the others are thawed", async () => {
  const [broken] = fixture.add("broken", "b", "c");
  fixture.fail("--freeze", broken!, "Input/output error");
  const group = makeGroup(LONG_MS, true);
  const error = await rejection(group.freeze(fixture.devices, LONG_MS));
  assert.is(error.code, "FREEZE_FAILED");
  assert.match(error.message, /broken \(ext4\) is not frozen: EIO$/);
  await thaw(group);
  assert.equal(fixture.calls("calls").slice(3), ["--unfreeze 1", "--unfreeze 2"]);
});

/** On a slow machine the limit may end another freeze than the one that hangs: retry with a longer one. */
async function freezeUntilHanging(): Promise<{ code: string; message: string }> {
  for (let limitMs = 300; ; limitMs *= 10) {
    const group = makeGroup();
    const error = await rejection(group.freeze(fixture.devices, limitMs));
    await group.thaw();
    if (/freezing \S+slow /.test(error.message) || limitMs > LONG_MS) return error;
    await until("the guard has ended", () => guards().length === 0);
    fixture.forgetCalls();
  }
}

test("if a freeze hangs, the others are thawed soon, it when it ends, and no take starts before", async () => {
  const [slow] = fixture.add("slow", "b");
  fixture.hang(slow!);
  fixture.setClock("pause", "runs");
  const { code, message } = await freezeUntilHanging();
  assert.is(code, "FREEZE_TIMEOUT");
  assert.match(message, /freezing \S+slow took longer than \d+ ms$/);
  await until("the other is thawed", () => fixture.calls().length === 2);
  assert.equal(fixture.calls(), ["--freeze 1", "--unfreeze 1"]);
  const next = makeGroup();
  assert.match((await rejection(next.freeze(fixture.devices, 100))).message, /still hangs/);
  await next.thaw();
  fixture.release(slow!);
  await until("it is thawed", () => fixture.calls().length === 4);
  assert.equal(fixture.calls().slice(2), ["--freeze 0", "--unfreeze 0"]);
  await until("the guard has ended", () => guards().length === 0);
  await next.freeze(fixture.devices, LONG_MS);
  await next.thaw();
});

test("the guard thaws after its own limit, and the take learns of it", async () => {
  fixture.add("a", "b", "c");
  const fds = fixture.fileSystems.map(({ path }) => openSync(path, "r"));
  fixture.setClock("limit", "stands");
  const guard = new FreezeGuard(apartProgram, fds, 5, () => {});
  for (const index of [2, 1, 0]) assert.equal(await guard.freeze(index), { frozen: true });
  fixture.setClock("limit", "over");
  assert.is(await guard.ended, true);
  assert.ok(thawedInReverse());
  for (const fd of fds) closeSync(fd);
  fixture.setClock("limit", "stands");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  assert.ok(isHeld(group));
  fixture.setClock("limit", "over");
  await until("the take is told", () => !isHeld(group));
  await thaw(group);
});

test("a guard that was killed is replaced for the thaw", async () => {
  fixture.add("a", "b", "c");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  for (const guard of guards()) {
    signalSession(guard, "SIGKILL");
  }
  await until("the take is told", () => !isHeld(group));
  await thaw(group);
  assert.equal(fixture.calls().slice(3).sort(), ["--unfreeze 0", "--unfreeze 1", "--unfreeze 2"]);
  assert.match(log.join("\n"), /was killed/);
});

test("a failed thaw is retried and reported", async () => {
  const [broken] = fixture.add("broken");
  fixture.fail("--unfreeze", broken!, "Cannot allocate memory");
  fixture.setClock("pause", "over");
  const group = makeGroup();
  await group.freeze(fixture.devices, LONG_MS);
  await thaw(group);
  assert.match(log.join("\n"), /broken could not be thawed: Cannot allocate memory$/);
  assert.is(fixture.calls("calls").length, 1 + 4);
});

test("the guard inherits the directories and nothing else, not even while it starts more", async () => {
  fixture.add("a", "b");
  const ring = new PromiseRing();
  const memory = createMemoryFile("freeze test");
  const file = openSync("/dev/zero", "r+");
  const fds = fixture.fileSystems.map(({ path }) => openSync(path, "r"));
  const guard = new FreezeGuard(apartProgram, fds, 60, () => {});
  await guard.freeze(0);
  const held = new Set(sessionProcesses(guard.pid!).flatMap(openFiles));
  guard.thaw();
  await guard.ended;
  for (const fd of [memory, file, ...fds]) closeSync(fd);
  ring.close();
  const own = fixture.fileSystems.map(({ path }) => path.toString());
  const others = [...held].filter(
    (name) => !own.includes(name) && name !== "/dev/null" && !/^(socket|pipe):/.test(name),
  );
  assert.equal(others, []);
  assert.ok(own.every((name) => held.has(name)));
});

function startVictim(): { victim: ChildProcess; frozen: Promise<void> } {
  const script = fileURLToPath(new URL("./freeze-victim.js", import.meta.url));
  const victim = spawn(process.execPath, [script, fixture.mountinfo], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  victims.push(victim);
  const frozen = new Promise<void>((resolve) => victim.stdout?.once("data", () => resolve()));
  return { victim, frozen };
}

test("if a daemon is killed while file systems are frozen, all are thawed", async () => {
  fixture.add("a", "b", "c");
  const { victim, frozen } = startVictim();
  await frozen;
  const [guard] = guards(victim.pid);
  victim.kill("SIGKILL");
  await until("everything is thawed", thawedInReverse);
  await until("nothing is left", () => sessionProcesses(guard!).length === 0);
});

test("signals to the daemon's group and to the guard do not keep it from thawing", async () => {
  fixture.add("a", "b", "c");
  const { victim, frozen } = startVictim();
  await frozen;
  const [guard] = guards(victim.pid);
  for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGPIPE"] as const) {
    signalSession(guard!, signal);
  }
  assert.is(fixture.calls().length, 3, "a signal made the guard thaw");
  process.kill(-victim.pid!, "SIGKILL");
  await until("everything is thawed", thawedInReverse);
  await until("nothing is left", () => sessionProcesses(guard!).length === 0);
});

test("if a daemon is killed while a freeze hangs, the file system is thawed when the freeze ends", async () => {
  const [slow] = fixture.add("slow", "b", "c");
  fixture.hang(slow!);
  fixture.setClock("pause", "runs");
  const { victim } = startVictim();
  await until("it hangs", () => fixture.calls("calls").length === 3);
  victim.kill("SIGKILL");
  await until("the others are thawed", () => fixture.calls().length === 4);
  fixture.release(slow!);
  await until("it is thawed too", () => fixture.calls().length === 6);
  assert.equal(fixture.calls().slice(-2), ["--freeze 0", "--unfreeze 0"]);
});

test.run();
