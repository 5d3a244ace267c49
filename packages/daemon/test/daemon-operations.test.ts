import type { DeviceInUse } from "@blksnap/driver";
import pino from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DaemonOperations } from "../dist/daemon-operations.js";
import type { SupervisorLink } from "../dist/supervisor-link.js";

const front: DeviceInUse = {
  device: "/dev/vdb",
  path: "/dev/ublkb0",
  kind: "front",
  users: ["mounted at /srv"],
};

interface More {
  keep?: boolean;
  stays?: readonly string[];
  link?: object;
  isGoingDown?: () => Promise<boolean>;
  onStay?: () => void;
  leading?: () => Promise<readonly string[]>;
  looking?: () => Promise<readonly DeviceInUse[]>;
}

function operations(inUse: readonly DeviceInUse[], more: More = {}) {
  const log: string[] = [];
  const asked: string[] = [];
  const options = {
    devices: {
      devicesInUse: async () => (await more.looking?.()) ?? inUse,
      leadBack: async (eachAlone = false) => {
        asked.push(eachAlone ? "each alone" : "all or none");
        return more.leading?.() ?? more.stays ?? [];
      },
      status: async () => ({ trackers: [{ front: "/dev/ublkb0", image: "/dev/ublkb1" }] }),
    },
    logger: pino({ level: "info" }, { write: (line) => void log.push(line) }),
    keep: more.keep ?? false,
    link: more.link as SupervisorLink | undefined,
    ...(more.isGoingDown === undefined ? {} : { isGoingDown: more.isGoingDown }),
    ...(more.onStay === undefined ? {} : { onStay: more.onStay }),
  };
  const made = new DaemonOperations(options);
  let ending: string | undefined;
  void made.ending.then((decided) => {
    ending = decided;
  });
  const ended = async () => {
    await new Promise((done) => setTimeout(done, 10));
    // On a slow machine the time may be over before the awaited turn has run.
    await new Promise((done) => setImmediate(done));
    return ending;
  };
  return { made, ended, log, asked };
}

async function codeOf(work: Promise<unknown>): Promise<[code: string, message: string]> {
  try {
    await work;
  } catch (error) {
    return [(error as { code: string }).code, (error as Error).message];
  }
  throw new Error("it did not fail");
}

test("stop is refused while a device is in use, and names its users", async () => {
  const { made, ended } = operations([front]);
  assert.equal(await codeOf(made.stop(false)), [
    "DAEMON_IN_USE",
    "in use: /dev/ublkb0 (/dev/vdb): mounted at /srv",
  ]);
  assert.is(await ended(), undefined);
  assert.equal((await made.stop(true)).kept, ["/dev/ublkb0", "/dev/ublkb1"]);
  assert.is(await ended(), "keep");
});

test("stop is refused while a node in use cannot get its table back, and names it", async () => {
  const { made, ended, log } = operations([], { stays: ["the front is still under vg-data"] });
  assert.equal(await codeOf(made.stop(false)), [
    "DAEMON_IN_USE",
    "in use: the front is still under vg-data",
  ]);
  made.onSignal("SIGTERM");
  assert.is(await ended(), undefined);
  assert.match(log.join(""), "SIGTERM refused: in use: the front is still under vg-data");
  assert.equal((await made.stop(true)).kept, ["/dev/ublkb0", "/dev/ublkb1"]);
});

test("stop detaches unused devices", async () => {
  const { made, ended } = operations([]);
  assert.equal((await made.stop(false)).kept, []);
  assert.is(await ended(), "detach");
});

test("a signal is refused while a device is in use, unless --keep allows to leave it waiting", async () => {
  const refused = operations([front]);
  refused.made.onSignal("SIGTERM");
  assert.is(await refused.ended(), undefined);
  const line = "SIGTERM refused: in use: /dev/ublkb0 (/dev/vdb): mounted at /srv. Unmount";
  assert.match(refused.log.join(""), line);
  const kept = operations([front], { keep: true });
  kept.made.onSignal("SIGTERM");
  assert.is(await kept.ended(), "keep");
  const free = operations([]);
  free.made.onSignal("SIGINT");
  assert.is(await free.ended(), "detach");
  const going = operations([], { isGoingDown: async () => true });
  going.made.onSignal("SIGTERM");
  assert.is(await going.ended(), "detach");
});

test("during shutdown a refused end follows as soon as nothing is in use", async () => {
  const inUse = [front];
  let asked = 0;
  const isGoingDown = async () => {
    // Its file system is unmounted after the daemon had to end.
    if (++asked === 2) inUse.pop();
    return true;
  };
  let stays = 0;
  const { made, log, ended } = operations(inUse, { isGoingDown, onStay: () => stays++ });
  made.onSignal("SIGTERM");
  await ended();
  // Its supervisor is killed: no other daemon will start.
  made.leave();
  assert.is(await made.ending, "detach");
  const lines = log.filter((line) => line.includes("SIGTERM: ends when nothing is in use: "));
  assert.is(lines.length, 1);
  const { level, msg } = JSON.parse(lines[0]!);
  // A shutdown with mounted file systems is no error.
  assert.is(level, 30);
  assert.match(msg, /mounted at \/srv$/);
  assert.is(stays, 1);
});

test("nodes in use get their tables back one by one only during shutdown", async () => {
  const staying = operations([], { stays: ["one stays"] });
  staying.made.onSignal("SIGTERM");
  await staying.ended();
  assert.equal(staying.asked, ["all or none"]);
  const going = operations([front], { isGoingDown: async () => going.asked.length === 0 });
  going.made.onSignal("SIGTERM");
  await going.ended();
  assert.equal(going.asked, ["each alone"]);
});

test("during shutdown a device that hangs or fails does not end the retries", async () => {
  let answer: (stays: readonly string[]) => void = () => undefined;
  const hung = new Promise<readonly string[]>((resolve) => {
    answer = resolve;
  });
  const results = [() => Promise.reject(new Error("it broke")), () => hung, async () => []];
  let looks = 0;
  const isGoingDown = async () => {
    looks++;
    return true;
  };
  const none = () => Promise.reject(new Error("asked after the end"));
  const leading = () => (results.shift() ?? none)();
  const { made, ended, log, asked } = operations([], { isGoingDown, leading });
  made.onSignal("SIGTERM");
  for (let waited = 0; looks < 4 && waited < 10_000; waited++) await ended();
  assert.is(await ended(), undefined);
  assert.equal(asked, ["each alone", "each alone"], "not asked again while one is under way");
  assert.match(log.join(""), "it broke");
  answer(["one stays"]);
  assert.is(await made.ending, "detach");
  assert.equal(results, []);
});

test("during shutdown, the system is asked to wait before device users are checked", async () => {
  let isBroken = true;
  const looks = [
    async () => {
      if (isBroken) throw new Error("it broke");
      return [];
    },
    () => new Promise<readonly DeviceInUse[]>(() => undefined),
  ];
  const stayed = [0, 0];
  const both = looks.map((looking, index) => {
    const onStay = (): void => void stayed[index]!++;
    return operations([], { isGoingDown: async () => true, looking, onStay });
  });
  for (const { made, ended } of both) {
    made.onSignal("SIGTERM");
    assert.is(await ended(), undefined);
    made.onSignal("SIGTERM");
    assert.is(await ended(), undefined);
  }
  assert.equal(stayed, [1, 1], "each is told once");
  // It retries until it gets an answer: endless retries would keep this test from its end.
  isBroken = false;
  assert.is(await both[0]!.made.ending, "detach");
});

test("if it is unknown whether the system shuts down, it counts as staying up", async () => {
  const isGoingDown = () => Promise.reject(new Error("there is no systemd"));
  const { made, ended, asked } = operations([], { isGoingDown });
  made.onSignal("SIGTERM");
  assert.is(await ended(), "detach");
  assert.equal(asked, ["all or none"]);
});

test("if the system stays up after all, the daemon continues", async () => {
  const inUse = [front];
  let asked = 0;
  const isGoingDown = async () => ++asked === 1;
  const { made, ended } = operations(inUse, { isGoingDown });
  made.onSignal("SIGTERM");
  for (let waited = 0; asked < 2 && waited < 1_000; waited++) await ended();
  inUse.pop();
  assert.is(asked, 2);
  assert.is(await ended(), undefined);
});

test("an upgrade hands over to the supervisor's fresh daemon; without one the daemon continues", async () => {
  const link = { connected: true, prepareSuccessor: async () => ({ pid: 7, version: "9" }) };
  const { made, ended } = operations([front], { link });
  const left = await made.upgrade();
  assert.equal([left.started_by, left.next_pid, left.next_version], ["supervisor", 7, "9"]);
  assert.is(await ended(), "handOver");

  const alone = operations([front], { link: { ...link, connected: false } });
  assert.is((await codeOf(alone.made.upgrade()))[0], "UPGRADE_UNATTENDED");
  assert.is(await alone.ended(), undefined);
});

test("of two concurrent upgrades one is refused", async () => {
  let ready: (next: object) => void = () => undefined;
  const prepared = new Promise<object>((resolve) => {
    ready = resolve;
  });
  const link = { connected: true, prepareSuccessor: () => prepared };
  const { made } = operations([], { link });
  const first = made.upgrade();
  assert.is((await codeOf(made.upgrade()))[0], "UPGRADE_FAILED");
  ready({ pid: 7, version: "9" });
  assert.is((await first).next_pid, 7);
});

test.run();
