import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlError, type DriverControl } from "@blksnap/api";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeDriver } from "../../api-server/dist/testing/fake-driver.js";
import type { NewDaemonEvent } from "../dist/events/differences.js";
import { hooksIn } from "../dist/hooks/hook-files.js";
import { TakeHooks, withHooks } from "../dist/hooks/take-hooks.js";

/** A hook that ends by itself does not reach this limit, even on the slowest machine. */
const AMPLE_MS = 300_000;

let dir = "";
let directory = "";
let trace = "";
let fake: FakeDriver;
let id = "";
const reported: NewDaemonEvent[] = [];
test.before.each(async () => {
  dir = mkdtempSync(join(tmpdir(), "hooks-"));
  directory = join(dir, "hooks.d");
  trace = join(dir, "trace");
  mkdirSync(directory, { mode: 0o755 });
  reported.length = 0;
  fake = new FakeDriver();
  const devices = ["/dev/loop0", "/dev/loop1"];
  ({ id } = await fake.snapshotCreate({ devices, stores: ["/var/tmp"], limitBytes: 2 ** 27 }));
});
test.after.each(() => rmSync(dir, { recursive: true }));

function hook(name: string, text: string, mode = 0o755): string {
  const path = join(directory, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, mode);
  return path;
}

/** A hook that records its arguments. */
function noting(name: string, more = ""): string {
  return hook(name, `echo "${name} $*" >>${trace}\n${more}`);
}

function traced(): string[] {
  return existsSync(trace) ? readFileSync(trace, "utf8").trimEnd().split("\n") : [];
}

function hooks(timeoutMs = AMPLE_MS): TakeHooks {
  const logger = pino({ level: "silent" });
  const report = (event: NewDaemonEvent) => void reported.push(event);
  return new TakeHooks({ directory, timeoutMs, begunFile: join(dir, "begun"), logger, report });
}

function driver(timeoutMs?: number): DriverControl {
  return withHooks(fake, hooks(timeoutMs), (event) => void reported.push(event));
}

async function failure(take: Promise<unknown>): Promise<ControlError> {
  try {
    await take;
  } catch (error) {
    if (error instanceof ControlError) return error;
    throw error;
  }
  throw new Error("it was taken");
}

const WORDS = () => `take ${id} /dev/loop0 /dev/loop1`;

test("hooks run in order before the take, and in reverse order after it", async () => {
  noting("20-b");
  noting("10-a", 'env | grep BLKSNAP_RESULT >>"$0.env"');
  hook("30-not-executable", "exit 1", 0o644);
  hook("40.dpkg-old", "exit 1");
  hook(".hidden", "exit 1");
  mkdirSync(join(directory, "50-folder"));
  const taken = await driver().snapshotTake(id);
  assert.is(taken.images.length, 2);
  const words = WORDS();
  assert.equal(traced(), [
    `10-a pre ${words}`,
    `20-b pre ${words}`,
    `20-b post ${words}`,
    `10-a post ${words}`,
  ]);
  const results = readFileSync(join(directory, "10-a.env"), "utf8");
  assert.is(results, "BLKSNAP_RESULT=none\nBLKSNAP_RESULT=taken\n");
  assert.equal(
    reported.map((event) => event.event),
    ["hook_ran", "hook_ran", "hook_ran", "hook_ran"],
  );
});

test("a kill while the list of begun hooks is written leaves the earlier list", async () => {
  const list = join(dir, "begun");
  const kept = `${dir}/kept`;
  // A file that is written in place would change under its other name, too, and be empty in between.
  hook("10-a", `[ "$1" = post ] || ln ${list} ${kept}`);
  noting("20-b");
  await driver().snapshotTake(id);
  assert.equal(JSON.parse(readFileSync(kept, "utf8")).names, ["10-a"]);
});

test("without a folder, or with an empty one, the take is unchanged", async () => {
  rmSync(directory, { recursive: true });
  const wrapped = driver();
  assert.is((await wrapped.snapshotTake(id)).id, id);
  assert.is((await wrapped.status()).snapshots.length, 1);
  assert.equal(reported, []);
});

test("a failing hook cancels the take with a named error; post hooks run for those that were started", async () => {
  noting("10-a");
  const bad = noting("20-b", '[ "$1" = post ] || { echo "the database is away" >&2; exit 3; }');
  noting("30-c");
  const error = await failure(driver().snapshotTake(id));
  assert.is(error.code, "HOOK_FAILED");
  assert.is(error.message, `${bad} before the take: exit status 3: the database is away`);
  assert.is((await fake.snapshotCollect())[0]?.taken, false);
  assert.equal(
    traced().map((line) => line.split(" ").slice(0, 2).join(" ")),
    ["10-a pre", "20-b pre", "20-b post", "10-a post"],
  );
  assert.equal(
    reported.map((event) => event.event),
    ["hook_ran", "hook_failed", "hook_ran", "hook_ran", "take_failed"],
  );
  assert.not(existsSync(join(dir, "begun")));
});

test("hooks learn that a take has failed", async () => {
  noting("10-a", `echo $BLKSNAP_RESULT >>${trace}`);
  fake.snapshotTake = async () => {
    throw new ControlError("TAKE_FAILED", "writes in flight did not end in time");
  };
  assert.is((await failure(driver().snapshotTake(id))).code, "TAKE_FAILED");
  assert.equal(traced().at(-1), "failed");
});

test("a failing post hook is reported, and the snapshot stays", async () => {
  noting("10-a", '[ "$1" = pre ]');
  assert.is((await driver().snapshotTake(id)).id, id);
  const kinds = reported.map((event) => event.event);
  assert.equal(kinds, ["hook_ran", "hook_failed"]);
});

test("an impossible take runs no hooks", async () => {
  noting("10-a");
  const wrapped = driver();
  await wrapped.snapshotTake(id);
  const before = traced().length;
  for (const wanted of [id, "11111111-2222-3333-4444-555555555555"]) {
    const { code } = await failure(wrapped.snapshotTake(wanted));
    assert.ok(["SNAPSHOT_ALREADY_TAKEN", "SNAPSHOT_NOT_FOUND"].includes(code), code);
  }
  assert.is(traced().length, before);
  assert.not(reported.some((event) => event.event === "take_failed"));
});

test("a hook that takes too long is killed with its process group, and the take is cancelled", async () => {
  // Its child would keep the output open for a day, and ignores every signal that it can.
  noting(
    "10-a",
    '[ "$1" = post ] && exit 0\ntrap "" TERM\nsleep 86400 &\necho $! >"$0.pid"\nwait; wait',
  );
  const noted = join(directory, "10-a.pid");
  const hasBegun = () => existsSync(noted) && readFileSync(noted, "utf8").endsWith("\n");
  // On a slow machine it may be killed before it has begun: retry with a longer limit.
  for (let seconds = 1; !hasBegun() && seconds <= AMPLE_MS / 1_000; seconds *= 4) {
    const error = await failure(driver(seconds * 1_000).snapshotTake(id));
    const said = `10-a before the take: it took longer than ${seconds} s and was killed`;
    assert.ok(error.message.endsWith(said), error.message);
  }
  const pid = Number(readFileSync(noted, "utf8"));
  for (;;) {
    try {
      const state = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.[0];
      if (state === "Z") break;
    } catch {
      break;
    }
    await new Promise((done) => setTimeout(done, 5));
  }
});

test("a post hook that uses up the time leaves the others their share", async () => {
  noting("10-a");
  noting("20-b", '[ "$1" = pre ] || sleep 86400');
  const isSetGoing = () => traced().some((line) => line.startsWith("10-a post "));
  // On a slow machine it may be killed before it has begun: retry with a longer limit.
  for (let seconds = 1; !isSetGoing() && seconds <= AMPLE_MS / 1_000; seconds *= 4) {
    await hooks(seconds * 1_000)
      .around(fake, id, async () => undefined)
      .catch(() => undefined);
  }
  assert.ok(isSetGoing(), traced().join("\n"));
});

test("background processes of a hook survive it, and are not awaited", async () => {
  noting("10-a", '[ "$1" = post ] && exec kill $(cat "$0.pid")\nsleep 86400 &\necho $! >"$0.pid"');
  await driver().snapshotTake(id);
  assert.equal(
    reported.map((event) => event.event),
    ["hook_ran", "hook_ran"],
  );
});

test("a file that others can write is refused, also by its folder, its owner or its target", async () => {
  const ways: (() => string)[] = [
    () => hook("10-a", "exit 0", 0o775),
    () => hook("10-a", "exit 0", 0o757),
    () => {
      const path = hook("10-a", "exit 0");
      chownSync(path, 12345, 0);
      return path;
    },
    () => {
      const path = hook("10-a", "exit 0");
      chmodSync(directory, 0o777);
      return path;
    },
    () => {
      const open = join(dir, "open");
      mkdirSync(open);
      chmodSync(open, 0o777);
      writeFileSync(join(open, "x"), "#!/bin/sh\n", { mode: 0o755 });
      symlinkSync(join(open, "x"), join(directory, "10-a"));
      return join(directory, "10-a");
    },
  ];
  for (const make of ways) {
    const path = make();
    const error = await failure(driver().snapshotTake(id));
    assert.is(error.code, "HOOK_FAILED");
    assert.match(
      error.message,
      /10-a before the take: .*(writable by users other than root|belongs to user 12345)/,
    );
    rmSync(path);
    chmodSync(directory, 0o755);
  }
  assert.ok(reported.every(({ event }) => event === "hook_failed" || event === "take_failed"));
  const trusted = hook("10-a", "exit 0");
  assert.equal(await hooksIn(directory), [{ name: "10-a", path: trusted, distrust: undefined }]);
});

test("a dangling link fails as a hook; a link to /dev/null disables it", async () => {
  const link = join(directory, "10-a");
  symlinkSync(join(dir, "not-mounted", "a"), link);
  const { code, message } = await failure(driver().snapshotTake(id));
  assert.is(code, "HOOK_FAILED");
  assert.match(message, /10-a before the take: it cannot be examined: ENOENT/);
  rmSync(link);
  symlinkSync("/dev/null", link);
  assert.is((await driver().snapshotTake(id)).id, id);
});

test("a hook that cannot be started counts as failed", async () => {
  writeFileSync(join(directory, "10-a"), "#!/no/such/interpreter\n", { mode: 0o755 });
  assert.match((await failure(driver().snapshotTake(id))).message, /exit status 12[67]/);
});

test("if no process can be started, only the hook fails, before and after the take", async () => {
  noting("10-a");
  noting("20-b");
  // More than fits into a command line.
  const devices = [`/dev/${"x".repeat(300_000)}`];
  fake.devices.set(devices[0]!, 2 ** 20);
  const other = await fake.snapshotCreate({ devices, stores: ["/var/tmp"], limitBytes: 2 ** 27 });
  const { code, message } = await failure(driver().snapshotTake(other.id));
  assert.is(code, "HOOK_FAILED");
  assert.match(message, /10-a before the take: it cannot be started: .*E2BIG/);
  const begun = { id: other.id, devices, names: ["10-a", "20-b"] };
  writeFileSync(join(dir, "begun"), JSON.stringify(begun));
  reported.length = 0;
  await hooks().finishEarlier();
  assert.equal(
    reported.map((event) => event.event),
    ["hook_failed", "hook_failed"],
  );
  assert.not(existsSync(join(dir, "begun")));
});

test("takes with hooks are serialised", async () => {
  noting("10-a");
  const options = { devices: [], stores: ["/var/tmp"], limitBytes: 2 ** 27 };
  fake.devices.set("/dev/loop2", 2 ** 20);
  const other = await fake.snapshotCreate({ ...options, devices: ["/dev/loop2"] });
  const wrapped = driver();
  await Promise.all([wrapped.snapshotTake(id), wrapped.snapshotTake(other.id)]);
  const phases = traced().map((line) => line.split(" ").slice(1, 4).join(" "));
  const both = [id, other.id].map((one) => [`pre take ${one}`, `post take ${one}`]);
  const orders = [both.flat(), both.toReversed().flat()];
  assert.ok(
    orders.some((order) => order.join() === phases.join()),
    phases.join(),
  );
});

test("the next daemon runs the post hooks of an interrupted take", async () => {
  noting("10-a", `echo $BLKSNAP_RESULT >>${trace}`);
  noting("20-b");
  const begun = { id, devices: ["/dev/loop0"], names: ["10-a"] };
  writeFileSync(join(dir, "begun"), JSON.stringify(begun));
  await hooks().finishEarlier();
  assert.equal(traced(), [`10-a post take ${id} /dev/loop0`, "failed"]);
  await hooks().finishEarlier();
  assert.is(traced().length, 2);
  for (const text of ["", "null", "{}", '{"id":7}']) {
    writeFileSync(join(dir, "begun"), text);
    await hooks().finishEarlier();
  }
  assert.is(traced().length, 2);
});

test.run();
