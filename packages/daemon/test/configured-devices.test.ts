/** Devices of the configuration: those that are in each other's way, and how they are attached. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lookAtPath, type PathTarget } from "@blksnap/linux-block";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { attachConfigured } from "../dist/config/attach-configured.js";
import type { ConfiguredDevice } from "../dist/config/config.js";
import { problemText } from "../dist/config/config-problem.js";
import { deviceConflicts } from "../dist/config/device-conflicts.js";

let folder: string;
test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-devices-"));
});
test.after.each(() => rmSync(folder, { recursive: true }));

function configured(device: string, line: number, waitSeconds = 0): ConfiguredDevice {
  return { device, persistent: line === 1, waitSeconds, from: `/c:${line}` };
}

/** A disk with a partition; other paths as they are. */
function sysfs() {
  const sysfsRoot = join(folder, "sys");
  const put = (path: string, text: string) => {
    mkdirSync(join(sysfsRoot, path, ".."), { recursive: true });
    writeFileSync(join(sysfsRoot, path), text);
  };
  put("block/sdb/dev", "8:16\n");
  put("block/sdb/size", "4096\n");
  put("block/sdb/sdb1/dev", "8:17\n");
  put("block/sdb/sdb1/partition", "1\n");
  put("block/sdb/sdb1/start", "8\n");
  put("block/sdb/sdb1/size", "1024\n");
  mkdirSync(join(sysfsRoot, "dev/block"), { recursive: true });
  symlinkSync("../../block/sdb", join(sysfsRoot, "dev/block/8:16"));
  symlinkSync("../../block/sdb/sdb1", join(sysfsRoot, "dev/block/8:17"));
  const lookAt = async (path: string): Promise<PathTarget> => {
    const minor = { "/dev/disk/by-id/b": 16, "/dev/disk/by-id/b-part1": 17 }[path];
    if (minor === undefined) return await lookAtPath(path);
    const blockDevice = { major: 8, minor };
    const device = { major: 0, minor: 5 };
    return { realPath: path, device, blockDevice, identity: `block:8:${minor}` };
  };
  return { sysfsRoot, lookAt };
}

test("devices that are the same, or lie on each other, are named with their lines", async () => {
  const probe = sysfs();
  const [disk, part] = ["/dev/disk/by-id/b", "/dev/disk/by-id/b-part1"];
  const said = async (...names: string[]) => {
    const devices = names.map((name, at) => configured(name, at + 1));
    return (await deviceConflicts(devices, probe)).map(problemText);
  };
  const hint = "Track a disk or what lies on it, not both, and each once.";
  assert.equal(await said(disk, part), [`/c:2: ${part} lies on ${disk} (/c:1). ${hint}`]);
  assert.equal(await said(part, disk), [`/c:2: ${part} (/c:1) lies on ${disk}. ${hint}`]);
  const [file, link, other] = ["a.img", "link", "b.img"].map((name) => join(folder, name));
  for (const path of [file!, other!]) writeFileSync(path, "");
  symlinkSync(file!, link!);
  assert.equal(await said(file!, link!, other!, part, "/dev/not/there"), [
    `/c:2: ${link} and ${file} (/c:1) are the same. ${hint}`,
  ]);
});

function attaching(answers: Readonly<Record<string, (string | undefined)[]>>) {
  const asked: string[] = [];
  const lines: { level: number; msg: string; device: string }[] = [];
  const logger = pino({ base: null }, { write: (line: string) => lines.push(JSON.parse(line)) });
  let nowMs = 0;
  const end = new AbortController();
  return {
    asked,
    lines,
    end,
    surroundings: {
      attach: async (device: string, { persistent }: { persistent?: boolean }) => {
        asked.push(`${device} ${persistent}`);
        const code = answers[device]!.shift();
        if (code !== undefined) throw Object.assign(new Error(`${device} says no`), { code });
        const front = "/dev/ublkb0";
        return {
          ...{ device, front, already_attached: false, persistent: persistent === true },
          ...{ attach_kind: "front" as const, live: null },
        };
      },
      logger,
      signal: end.signal,
      nowMs: () => nowMs,
      untilLookAgain: async () => {
        nowMs += 1000;
      },
    },
  };
}

test("a device that appears in time is attached, as it is configured", async () => {
  const { surroundings, asked, lines } = attaching({
    "/dev/vg/a": ["DEVICE_NOT_FOUND", "DEVICE_NOT_FOUND", undefined],
  });
  await attachConfigured([configured("/dev/vg/a", 1, 5)], surroundings);
  assert.equal(asked, ["/dev/vg/a true", "/dev/vg/a true", "/dev/vg/a true"]);
  assert.equal(
    lines.map(({ level, device }) => [level, device]),
    [[30, "/dev/vg/a"]],
  );
});

test("what is not there in time, or cannot be attached, is said, and holds no other up", async () => {
  const missing = Array.from({ length: 20 }, () => "DEVICE_NOT_FOUND");
  const { surroundings, asked, lines } = attaching({
    "/dev/vg/a": [...missing],
    "/dev/vg/b": ["DEVICE_BUSY"],
    "/dev/vg/c": [undefined],
  });
  const devices = [
    configured("/dev/vg/a", 1, 3),
    configured("/dev/vg/b", 2),
    configured("/dev/vg/c", 3),
  ];
  await attachConfigured(devices, surroundings);
  const errors = lines.filter(({ level }) => level === 50);
  assert.equal(
    errors.map(({ device }) => device),
    ["/dev/vg/b", "/dev/vg/a"],
  );
  assert.match(errors[1]!.msg, "is not attached after 3 s: /dev/vg/a says no");
  assert.is(asked.filter((text) => text.startsWith("/dev/vg/a")).length, 4);
  assert.ok(asked.includes("/dev/vg/c false"));
});

test("nothing is waited for any more when the daemon is to end", async () => {
  const { surroundings, asked, end } = attaching({ "/dev/vg/a": ["DEVICE_NOT_FOUND", undefined] });
  const untilLookAgain = async () => end.abort();
  await attachConfigured([configured("/dev/vg/a", 1, 9)], { ...surroundings, untilLookAgain });
  assert.is(asked.length, 1);
});

test.run();
