/** Attaching devices of the configuration, and giving them up by a detach. */
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ConfiguredDevices, devicesToAttach } from "../dist/config/attach-configured.js";
import type { ConfiguredDevice } from "../dist/config/config.js";
import type { Served } from "../dist/config/served.js";

function configured(device: string, line: number, waitSeconds = 0): ConfiguredDevice {
  return { device, persistent: line === 1, waitSeconds, from: `/c:${line}` };
}

/** The devices, pending from now, and responses to attach: undefined for a success. */
function attaching(
  answers: Readonly<Record<string, (string | undefined)[]>>,
  devices: readonly ConfiguredDevice[],
  earlier?: Served,
) {
  const asked: string[] = [];
  const paused: number[] = [];
  const lines: { level: number; msg: string; device: string }[] = [];
  const logger = pino({ base: null }, { write: (line: string) => lines.push(JSON.parse(line)) });
  let nowMs = 0;
  let settled = 0;
  const end = new AbortController();
  const config = { values: new Map(), devices };
  const surroundings = {
    attach: async (device: string, { persistent }: { persistent?: boolean }) => {
      asked.push(`${device} ${persistent}`);
      const code = answers[device]!.shift();
      if (code === "ends") end.abort();
      if (code !== undefined) throw Object.assign(new Error(`${device} says no`), { code });
      const front = "/dev/ublkb0";
      return {
        ...{ device, front, already_attached: false, persistent: persistent === true },
        ...{ attach_kind: "front" as const, live: null },
      };
    },
    logger,
    signal: end.signal,
    onSettled: () => {
      settled++;
    },
    nowMs: () => nowMs,
    untilRetry: async (_: AbortSignal, afterMs: number) => {
      paused.push(afterMs);
      nowMs += Math.max(1000, afterMs);
    },
  };
  const all = new ConfiguredDevices(devicesToAttach(config, earlier, false, 0), surroundings);
  const at = (level: number) => lines.filter((line) => line.level === level);
  return { asked, paused, at, end, all, settled: () => settled, surroundings };
}

function repeated(code: string, times: number): string[] {
  return Array.from({ length: times }, () => code);
}

function failing(code: string): () => Promise<never> {
  return async () => {
    throw Object.assign(new Error("the driver says no"), { code });
  };
}

function codeOf(operation: Promise<unknown>): Promise<string> {
  return operation.then(
    () => "",
    ({ code }) => code,
  );
}

const INFO = 30;
const ERROR = 50;

test("a device that appears in time is attached as configured", async () => {
  const { all, asked, at, settled } = attaching(
    { "/dev/vg/a": ["DEVICE_NOT_FOUND", "DEVICE_NOT_FOUND", undefined] },
    [configured("/dev/vg/a", 1, 5)],
  );
  await all.attach();
  assert.equal(asked, ["/dev/vg/a true", "/dev/vg/a true", "/dev/vg/a true"]);
  assert.equal(
    at(INFO).map(({ msg }) => msg),
    ["waiting for a configured device: /dev/vg/a says no", "a configured device is attached"],
  );
  assert.equal([all.waited, all.missing, settled(), at(ERROR)], [[], [], 1, []]);
});

test("a device given up while attaching was impossible is attached afterwards, others are not", async () => {
  const { all, asked, surroundings } = attaching(
    {
      "/dev/vg/a": [...repeated("DEVICE_BUSY", 11), undefined],
      "/dev/vg/b": ["DEVICE_ZONED"],
    },
    [configured("/dev/vg/a", 1), configured("/dev/vg/b", 2)],
  );
  Object.assign(surroundings, { isHeld: () => true });
  await all.attach();
  assert.equal(all.missing.map(({ device, waited_for }) => [device, waited_for]).sort(), [
    ["/dev/vg/a", false],
    ["/dev/vg/b", false],
  ]);
  asked.length = 0;
  await all.attachHeld();
  assert.is(asked.at(-1), "/dev/vg/a true");
  assert.not(asked.some((one) => one.startsWith("/dev/vg/b")));
  assert.equal(
    all.missing.map(({ device }) => device),
    ["/dev/vg/b"],
  );
  asked.length = 0;
  await all.attachHeld();
  assert.equal(asked, [], "once");
});

/** Two devices that were given up while nothing could be attached, when that has ended. */
async function held(answers: Readonly<Record<string, (string | undefined)[]>>, earlier?: Served) {
  const devices = [configured("/dev/vg/a", 1), configured("/dev/vg/b", 2)];
  const made = attaching(answers, devices, earlier);
  Object.assign(made.surroundings, { isHeld: () => true });
  await made.all.attach();
  Object.assign(made.surroundings, { isHeld: () => false });
  made.asked.length = 0;
  return { ...made, devices };
}

test("a device that was held back and is then in use is attached when it is free, however long that takes", async () => {
  const { all, paused, at } = await held({
    "/dev/vg/a": [...repeated("DEVICE_BUSY", 100), "DEVICE_NOT_FOUND", undefined],
    "/dev/vg/b": ["DEVICE_BUSY", "DEVICE_ZONED"],
  });
  const errors = at(ERROR).length;
  await all.attachHeld();
  assert.equal([all.waited, all.missing.map(({ device }) => device)], [[], ["/dev/vg/b"]]);
  assert.is(at(ERROR).length, errors + 1, "of that which has failed for good");
  assert.equal([paused[0], paused.at(-1)], [500, 10_000]);
});

test("a device that users have detached by any name is not attached later", async () => {
  const { all, asked, settled } = await held({
    "/dev/vg/a": ["DEVICE_BUSY"],
    "/dev/vg/b": ["DEVICE_BUSY", undefined],
  });
  assert.is(await all.detach("/dev/vg/../vg/a", failing("NOT_ATTACHED")), undefined);
  assert.is(await codeOf(all.detach("/dev/vg/c", failing("NOT_ATTACHED"))), "NOT_ATTACHED");
  await all.attachHeld();
  assert.equal([asked, all.missing, settled()], [["/dev/vg/b false"], [], 4]);
  const text = "it is attached";
  assert.is(await codeOf(all.detach("/dev/vg/b", failing("NOT_ATTACHED"))), "NOT_ATTACHED", text);

  // Below /dev, as udev's links are.
  const links = mkdtempSync("/dev/shm/blksnap-devices-");
  const link = join(links, "link");
  symlinkSync("/dev/null", link);
  const waiting = attaching({ "/dev/null": repeated("DEVICE_NOT_FOUND", 9) }, [
    configured("/dev/null", 1, 60),
  ]);
  const { untilRetry } = waiting.surroundings;
  Object.assign(waiting.surroundings, {
    untilRetry: async (signal: AbortSignal, afterMs: number) => {
      if (waiting.asked.length === 3) void waiting.all.detach(link, failing("DEVICE_NOT_FOUND"));
      await untilRetry(signal, afterMs);
    },
  });
  await waiting.all.attach();
  assert.equal([waiting.asked.length, waiting.all.waited, waiting.all.missing], [3, [], []]);
  rmSync(links, { recursive: true });
});

test("a device whose detach fails is attached later, and not tried meanwhile", async () => {
  const { all, asked, surroundings } = attaching(
    { "/dev/vg/a": [...repeated("DEVICE_NOT_FOUND", 3), undefined] },
    [configured("/dev/vg/a", 1, 60)],
  );
  const { untilRetry } = surroundings;
  let detaching: Promise<string> | undefined;
  let fail: () => void = () => undefined;
  Object.assign(surroundings, {
    untilRetry: async (signal: AbortSignal, afterMs: number) => {
      await untilRetry(signal, afterMs);
      if (asked.length !== 2 || detaching !== undefined) return;
      const detach = () =>
        new Promise<never>((_, reject) => {
          fail = () => reject(Object.assign(new Error("it is busy"), { code: "FRONT_IN_USE" }));
        });
      detaching = codeOf(all.detach("/dev/vg/a", detach));
    },
  });
  const attached = all.attach();
  for (let turns = 0; turns < 20; turns++) await turn();
  assert.equal([asked.length, all.waited.length, all.missing.length], [2, 1, 1]);
  fail();
  assert.is(await detaching, "FRONT_IN_USE");
  await attached;
  assert.equal([asked.length, all.waited, all.missing], [4, [], []]);
});

test("a device that is given up and held back during its detach does not come back", async () => {
  const { all, asked, surroundings } = attaching({ "/dev/vg/a": ["DEVICE_BUSY"] }, [
    configured("/dev/vg/a", 1),
  ]);
  let isGivenUp: () => void = () => undefined;
  const givenUp = new Promise<void>((resolve) => {
    isGivenUp = resolve;
  });
  const { attach, onSettled } = surroundings;
  let leaving: Promise<unknown> | undefined;
  Object.assign(surroundings, {
    isHeld: () => true,
    attach: async (device: string, options: object) => {
      leaving ??= all.detach(device, () => givenUp.then(failing("NOT_ATTACHED")));
      surroundings.nowMs = () => Number.MAX_SAFE_INTEGER;
      return await attach(device, options);
    },
    onSettled: () => {
      isGivenUp();
      onSettled();
    },
  });
  await all.attach();
  assert.is(await leaving, undefined);
  assert.equal([all.waited, all.missing], [[], []]);
  asked.length = 0;
  await all.attachHeld();
  assert.equal(asked, []);
});

test("the next daemon does not wait at its start for devices that are held back, and attaches them later", async () => {
  const first = await held({ "/dev/vg/a": ["DEVICE_BUSY"], "/dev/vg/b": [undefined] });
  assert.equal(
    first.all.waited.map(({ configured: { device }, isHeld }) => [device, isHeld]),
    [["/dev/vg/a", true]],
  );
  const config = { values: new Map(), devices: first.devices };
  const served = { pid: 1, config, waited: first.all.waited };
  const next = attaching({ "/dev/vg/a": ["DEVICE_BUSY", undefined] }, first.devices, served);
  await next.all.attach();
  assert.equal([next.asked, next.all.waited.length], [[], 1]);
  await next.all.attachHeld();
  assert.equal([next.asked.length, next.all.waited], [2, []]);
});

test("temporary failures at boot are retried, each reason logged once", async () => {
  const { all, asked, at } = attaching(
    {
      "/dev/vg/a": [
        ...repeated("DEVICE_NOT_FOUND", 2),
        ...repeated("DEVICE_BUSY", 2),
        ...["DEVICE_TOO_SMALL", "DEVICE_FAILED", "NO_ANSWER", "UBLK_FAILED", undefined],
      ],
    },
    [configured("/dev/vg/a", 1, 60)],
  );
  await all.attach();
  assert.equal([asked.length, at(ERROR), all.missing], [9, [], []]);
  assert.is(at(INFO).length, 7);
});

test("a device that is late, or cannot be attached, is reported, and delays no other", async () => {
  const devices = [
    configured("/dev/vg/a", 1, 3),
    configured("/dev/vg/b", 2),
    configured("/dev/vg/c", 3),
    configured("/dev/vg/d", 4, 9),
  ];
  const { all, asked, at, settled } = attaching(
    {
      "/dev/vg/a": repeated("DEVICE_BUSY", 20),
      "/dev/vg/b": ["DEVICE_NOT_FOUND"],
      "/dev/vg/c": [undefined],
      "/dev/vg/d": ["DEVICE_OVERLAPS"],
    },
    devices,
  );
  await all.attach();
  assert.equal(
    at(ERROR).map(({ device }) => device),
    ["/dev/vg/b", "/dev/vg/d", "/dev/vg/a"],
  );
  assert.match(at(ERROR)[1]!.msg, "is not attached: /dev/vg/d says no");
  assert.match(at(ERROR)[2]!.msg, "is not attached after 3 s: /dev/vg/a says no");
  assert.is(asked.filter((text) => text.startsWith("/dev/vg/a")).length, 4);
  assert.ok(asked.includes("/dev/vg/c false"));
  assert.equal(
    all.missing.map(({ device, from, waited_for, code }) => [device, from, waited_for, code]),
    [
      ["/dev/vg/a", "/c:1", false, "DEVICE_BUSY"],
      ["/dev/vg/b", "/c:2", false, "DEVICE_NOT_FOUND"],
      ["/dev/vg/d", "/c:4", false, "DEVICE_OVERLAPS"],
    ],
  );
  assert.equal([all.waited, settled()], [[], 4]);
});

test("a busy device delays the boot for at most ten seconds, an absent one as configured", async () => {
  const { all, asked, at } = attaching(
    {
      "/dev/vg/mounted": repeated("DEVICE_BUSY", 700),
      "/dev/vg/late": [
        ...repeated("DEVICE_NOT_FOUND", 400),
        ...repeated("DEVICE_BUSY", 5),
        undefined,
      ],
    },
    [configured("/dev/vg/mounted", 1, 600), configured("/dev/vg/late", 2, 600)],
  );
  await all.attach();
  assert.equal(
    at(ERROR).map(({ device }) => device),
    ["/dev/vg/mounted"],
  );
  assert.ok(asked.filter((text) => text.startsWith("/dev/vg/mounted")).length <= 11);
  assert.is(asked.filter((text) => text.startsWith("/dev/vg/late")).length, 406);
  assert.is(all.missing.length, 1);
});

test("a successor waits for the devices that its predecessor waited for, or was attaching", async () => {
  const devices = [configured("/dev/vg/b", 2, 9), configured("/dev/vg/a", 1, 9)];
  const first = attaching({ "/dev/vg/a": ["ends"], "/dev/vg/b": [undefined] }, devices);
  await first.all.attach();
  assert.equal([first.asked.length, first.at(ERROR)], [2, []]);
  assert.is(first.all.missing.length, 0);
  const waited = first.all.waited;
  assert.equal(
    waited.map(({ configured: { device }, untilMs }) => [device, untilMs]),
    [["/dev/vg/a", 9000]],
  );
  const served = { pid: 1, config: { values: new Map(), devices }, waited };
  const next = attaching({ "/dev/vg/a": repeated("DEVICE_NOT_FOUND", 20) }, devices, served);
  await next.all.attach();
  assert.equal(next.asked, repeated("/dev/vg/a true", 10), "for the time that was left, no other");
});

test("a successor attaches remaining devices that are still configured", () => {
  const devices = [configured("/dev/vg/a", 1, 9), configured("/dev/vg/b", 2, 9)];
  const config = { values: new Map(), devices };
  const names = (earlier: Served | undefined, isStandby: boolean) =>
    devicesToAttach(config, earlier, isStandby, 0).map((one) => one.configured.device);
  const all = ["/dev/vg/a", "/dev/vg/b"];
  assert.equal(names(undefined, false), all, "a first start");
  assert.equal(names(undefined, true), [], "an upgrade from a version that wrote nothing");
  assert.equal(names({ pid: 1, config, waited: undefined }, false), all, "a start by hand");
  assert.equal(names({ pid: 1, config, waited: [] }, false), [], "after a crash");
  const gone = configured("/dev/vg/c", 3, 9);
  const waited = [devices[1]!, gone].map((one) => {
    return { configured: one, untilMs: 1, earlierDaemons: 0 };
  });
  for (const isStandby of [false, true]) {
    assert.equal(names({ pid: 1, config, waited }, isStandby), ["/dev/vg/b"]);
  }
});

test("a device that ends several daemons in a row is given up", async () => {
  const devices = [configured("/dev/vg/a", 1, 9)];
  const config = { values: new Map(), devices };
  let earlier: Served | undefined;
  for (let daemons = 0; daemons < 4; daemons++) {
    const { all, asked } = attaching({ "/dev/vg/a": ["ends"] }, devices, earlier);
    await all.attach();
    assert.is(asked.length, 1);
    earlier = { pid: 1, config, waited: all.waited };
  }
  const { all, asked, at } = attaching({}, devices, earlier);
  await all.attach();
  assert.equal([asked, all.waited], [[], []]);
  assert.match(at(ERROR)[0]!.msg, "4 daemons have ended while they waited for it");
});

test("all waits end when the daemon ends", async () => {
  const { surroundings, asked, end } = attaching({ "/dev/vg/a": ["DEVICE_NOT_FOUND"] }, []);
  const untilRetry = async () => end.abort();
  const waited = { configured: configured("/dev/vg/a", 1, 9), untilMs: 9000, earlierDaemons: 0 };
  await new ConfiguredDevices([waited], { ...surroundings, untilRetry }).attach();
  assert.is(asked.length, 1);
});

test.run();
