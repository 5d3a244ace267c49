import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readRecords } from "@blksnap/driver";
import { EBUSY, ETIMEDOUT } from "@blksnap/errors";
import { DeviceMark, type UblkDeviceInfo, UblkState } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../../driver/dist/records/state-directory.js";
import { HostFiles, type OwnProcess } from "../dist/doctor/host-files.js";
import {
  checkDevices,
  checkFreezes,
  checkLinks,
  checkStateFiles,
  checkSuspended,
  heldNodes,
  lastingUsers,
  recordsFrom,
  type Surroundings,
} from "../dist/doctor/leftovers.js";
import {
  checkNames,
  checkSearches,
  checkSocket,
  checkStateDirectory,
} from "../dist/doctor/surroundings.js";

const OWNER = 0xfedcba98;
const UUID = "11111111-2222-4333-8444-555555555555";
const DAEMON: OwnProcess = { pid: 40, parent: 1, role: "daemon", words: ["node", "blksnapd"] };
const root = mkdtempSync(join(tmpdir(), "blksnap-leftovers-"));
const host = new HostFiles(root);
test.after(() => rmSync(root, { recursive: true }));

function surroundings(more: Partial<Surroundings> = {}): Surroundings {
  const records = recordsFrom([
    { name: "tracker-1", value: { id: 1, device: "/dev/vdb", front: 3 } },
    {
      name: `snapshot-${UUID}`,
      value: { id: UUID, state: "taken", members: [{ tracker: 1, map: null, image: 4 }] },
    },
  ]);
  return { host, records, processes: [], daemon: undefined, owner: OWNER, ...more };
}

function device(id: number, state: number, more: Partial<UblkDeviceInfo> = {}): UblkDeviceInfo {
  const none = { queues: 1, queueDepth: 64, maxIoBytes: 4096, features: 0 };
  const owner = { serverPid: 40, ownerUid: 0, ownerGid: 0 };
  const mark = { serverFlags: DeviceMark.FRONT, serverFlagsHigh: OWNER };
  return { id, state, ...mark, ...none, ...owner, ...more };
}

/** ublk with these devices; removed ones are gone from `infos`. */
function ublk(infos: UblkDeviceInfo[]) {
  return {
    infos,
    list: async () => [...infos],
    info: async (id: number) => infos.find((info) => info.id === id),
    remove: async (id: number) => {
      infos.splice(
        infos.findIndex((info) => info.id === id),
        1,
      );
    },
  };
}

test("served devices, and those of other servers, are left alone", async () => {
  const devices = ublk([
    device(3, UblkState.LIVE),
    device(7, UblkState.DEAD, { serverFlags: 0 }),
    device(8, UblkState.QUIESCED, { serverFlags: 1 }),
    device(9, UblkState.QUIESCED, { serverFlagsHigh: 1 }),
  ]);
  const given = surroundings({ processes: [DAEMON], daemon: DAEMON });
  const findings = await checkDevices(devices, given);
  assert.equal(
    findings.map(({ state, what, fix }) => [state, what, fix]),
    [["ok", "devices served: 1; of other servers: 3", undefined]],
  );
});

test("a dead device of ours is removed, but not one that waits for a daemon", async () => {
  const devices = ublk([device(3, UblkState.QUIESCED), device(9, UblkState.DEAD)]);
  const [, waiting, dead] = await checkDevices(devices, surroundings());
  assert.match(waiting.what, "/dev/ublkb3 waits for a daemon");
  assert.is(waiting.state, "error", "its users hang");
  assert.match(waiting.hint ?? "", "Start it: blksnapd");
  assert.is(waiting.fix, undefined);
  assert.match(dead.what, "/dev/ublkb9 belongs to blksnap and has ended");
  assert.is(await dead.fix?.(), "removed /dev/ublkb9");
  assert.equal(
    devices.infos.map(({ id }) => id),
    [3],
  );
});

test("a device without a record is removed, unless its number was reassigned", async () => {
  const devices = ublk([device(9, UblkState.QUIESCED)]);
  const [, forgotten] = await checkDevices(devices, surroundings());
  assert.match(forgotten.what, "/dev/ublkb9 waits without a record, and has no users");
  // Another server got its number between the check and the removal.
  devices.infos[0] = device(9, UblkState.LIVE, { serverFlags: 0 });
  await forgotten.fix?.().then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, "used by another server now"),
  );
  assert.is(devices.infos.length, 1);
  devices.infos[0] = device(9, UblkState.QUIESCED);
  await forgotten.fix?.();
  assert.is(devices.infos.length, 0);
});

test("a node of a live attach keeps its front in use only if the node is in use itself", async () => {
  const users: Record<string, string[]> = {
    "/dev/ublkb9": ["used by dm-3", "used by loop4", "dd (pid 12)"],
    "/dev/dm-3": [],
  };
  const find = (path: string) => users[path] ?? [];
  assert.equal(lastingUsers("/dev/ublkb9", find), ["used by loop4", "dd (pid 12)"]);
  users["/dev/dm-3"] = ["mounted at /srv/data", "used by dm-4"];
  assert.equal(lastingUsers("/dev/ublkb9", find), [
    "used by dm-3 (mounted at /srv/data)",
    "used by dm-3 (used by dm-4)",
    "used by loop4",
    "dd (pid 12)",
  ]);
  // After a lazy unmount with open files it is still held; or its use is unknown.
  for (const [answer, held] of [
    [0, []],
    [-EBUSY, ["dm-3"]],
    [-ETIMEDOUT, ["dm-3"]],
  ] as const) {
    const claims: string[] = [];
    const claim = async (node: string): Promise<number> => {
      claims.push(node);
      return answer;
    };
    assert.equal(await heldNodes("/dev/ublkb9", find, claim), held);
    assert.equal(claims, ["/dev/dm-3"]);
  }
});

test("a device that a daemon is creating is not mistaken for a dead one", async () => {
  const devices = ublk([device(9, UblkState.DEAD)]);
  devices.info = async () => device(9, UblkState.LIVE);
  const given = surroundings({ processes: [DAEMON], daemon: DAEMON });
  assert.is((await checkDevices(devices, given)).length, 1);
});

test("links to devices that are gone or others' are removed", async () => {
  const folder = "/links";
  mkdirSync(join(root, folder));
  symlinkSync("../ublkb3", join(root, folder, "vdb"));
  symlinkSync("../ublkb5", join(root, folder, "vdc"));
  writeFileSync(join(root, folder, "notes"), "not ours");
  mkdirSync(join(root, folder, "by-original/dev"), { recursive: true });
  symlinkSync("/dev/ublkb5", join(root, folder, "by-original/dev/vdc"));
  const findings = checkLinks(surroundings(), [], folder);
  assert.equal(
    findings.map(({ what }) => what),
    ["by-original/dev/vdc", "vdc"].map(
      (name) => `/links/${name} does not lead to a device of blksnap`,
    ),
  );
  for (const { fix } of findings) await fix?.();
  assert.equal(readdirSync(join(root, folder)).sort(), ["notes", "vdb"]);
});

test("unclaimed files in the state directory are removed, unless a daemon uses it", async () => {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const state = new StateDirectory(path);
  state.writeRecord("tracker-1", { id: 1 });
  state.writeRecord("tracker-8", { id: 8 });
  for (const name of ["tracker-8.record", "tracker-8.record-copy"]) {
    writeFileSync(join(path, name), "damaged");
  }
  const kept = ["cbt-1", "cbt-8", "blksnapd.sock", "something-else"];
  const stale = [
    ...[
      "cbt-2",
      `area-${UUID}-1`,
      `area-${UUID}-${UUID}`,
      `blksnap-store-${UUID}-0`,
      "tracker-3.record.new",
    ],
    "tracker-3.record-copy",
  ];
  for (const name of [...kept, ...stale]) writeFileSync(join(path, name), "");
  state.close();
  const records = recordsFrom(readRecords(path, ""));
  const given = surroundings({ host: new HostFiles(), records });
  const locked = (work: () => void) => work();
  assert.equal(
    checkStateFiles({ ...given, daemon: DAEMON }, path, locked).map(({ check, fix }) => [
      check,
      fix,
    ]),
    [
      ["state_files", undefined],
      ["state_files", undefined],
    ],
  );
  const findings = checkStateFiles(given, path, locked);
  assert.match(findings[0].what, "the record tracker-8 is damaged");
  assert.is(findings.length, 1 + stale.length);
  for (const { fix } of findings) await fix?.();
  for (const name of stale) assert.not(existsSync(join(path, name)), name);
  for (const name of kept) assert.ok(existsSync(join(path, name)), name);
  rmSync(path, { recursive: true });
});

test("records of devices to be attached again are not stale", () => {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const state = new StateDirectory(path);
  state.writeRecord("return-254:3", { device: "/dev/vg/data" });
  state.close();
  const records = recordsFrom(readRecords(path, ""));
  const given = surroundings({ host: new HostFiles(), records });
  const findings = checkStateFiles(given, path, (work) => work());
  assert.equal(
    findings.map(({ what }) => what),
    [`${path} has no stale file`],
  );
  rmSync(path, { recursive: true });
});

test("only a node that an exchange has left suspended is reported", () => {
  const state = "/run/blksnap/state";
  mkdirSync(join(root, state), { recursive: true });
  for (const [number, isSuspended] of [
    ["254:3", "1"],
    ["254:4", "0"],
  ]) {
    writeFileSync(join(root, state, `exchange-${number}`), "");
    const folder = join(root, `sys/dev/block/${number}/dm`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "suspended"), `${isSuspended}\n`);
    writeFileSync(join(folder, "name"), `vg-${number}\n`);
  }
  const alone = checkSuspended(surroundings(), state);
  assert.equal(
    alone.map(({ state: is, what }) => [is, what]),
    [["error", "vg-254:3 is suspended, and an exchange of its tables has not ended"]],
  );
  assert.match(alone[0]?.hint ?? "", "Start the daemon");
  const served = checkSuspended(surroundings({ daemon: DAEMON }), state);
  assert.match(served[0]?.hint ?? "", "The daemon resumes it");
});

test("a freeze guard without its daemon, and an interrupted take, are reported", () => {
  const guard: OwnProcess = { pid: 50, parent: 40, role: "freeze-guard", words: [] };
  const [atWork] = checkFreezes(surroundings({ processes: [DAEMON, guard], daemon: DAEMON }));
  assert.is(atWork.state, "ok");
  const [orphan] = checkFreezes(surroundings({ processes: [{ ...guard, parent: 1 }] }));
  assert.match(orphan.what, "process 50 still holds file systems frozen");
  const { records } = surroundings();
  const taking = records.snapshots.map((snapshot) => ({ ...snapshot, state: "taking" as const }));
  const [cut] = checkFreezes(surroundings({ records: { ...records, snapshots: taking } }));
  assert.match(cut.what, "a take of /dev/vdb was interrupted");
});

test("a state directory that others can write, or on a disk, is reported", () => {
  const disk = mkdtempSync(join(tmpdir(), "blksnap-dir-"));
  chmodSync(disk, 0o777);
  assert.is(checkStateDirectory(disk).state, "error");
  chmodSync(disk, 0o700);
  assert.is(checkStateDirectory(join(disk, "none")).state, "ok");
  rmSync(disk, { recursive: true });
  // Never tmpfs, whatever the host is.
  assert.match(checkStateDirectory("/proc/self").what, "/proc/self is not on tmpfs");
});

test("a daemon's socket must exist, and not be open to everybody", () => {
  const path = join(root, "socket");
  assert.is(checkSocket(path, "", false).state, "ok");
  assert.is(checkSocket(path, "", true).state, "error");
  writeFileSync(path, "");
  chmodSync(path, 0o666);
  assert.match(checkSocket(path, "", true).what, "every user can open");
  chmodSync(path, 0o660);
  assert.is(checkSocket(path, "root:x:0:\n", true).state, "ok");
  assert.is(checkSocket(path, "root:x:0:\nblksnap:x:99999:me\n", true).state, "warning");
});

test("udev links that lead to an original are reported", () => {
  mkdirSync(join(root, "dev/by"), { recursive: true });
  writeFileSync(join(root, "dev/vdb"), "");
  writeFileSync(join(root, "dev/ublkb3"), "");
  const tracked = [{ device: "/dev/vdb", front: "/dev/ublkb3" }];
  symlinkSync("../ublkb3", join(root, "dev/by/good"));
  assert.is(checkNames(host, tracked, "/dev/by").state, "ok");
  symlinkSync("../vdb", join(root, "dev/by/bad"));
  const found = checkNames(host, tracked, "/dev/by");
  assert.match(found.what, "/dev/by/bad leads to /dev/vdb, not to its front");
  // Attached by a link that leads to the front since.
  const linked = [{ ...tracked[0]!, device: "/dev/by/good", identity: "block:254:16" }];
  mkdirSync(join(root, "sys/dev/block/254:16"), { recursive: true });
  writeFileSync(join(root, "sys/dev/block/254:16/uevent"), "DEVNAME=vdb\n");
  assert.match(checkNames(host, linked, "/dev/by").what, /^\/dev\/by\/bad leads to/);
});

test("writable images are found by UUID, unless udev hides them", () => {
  const root = mkdtempSync(join(tmpdir(), "blksnap-doctor-"));
  const host = new HostFiles(root);
  assert.is(checkSearches(host, []).state, "ok");
  const found = checkSearches(host, ["/dev/ublkb1"]);
  assert.is(found.state, "warning");
  assert.match(found.what, /^\/dev\/ublkb1 is a writable image$/);
  mkdirSync(join(root, "etc/udev/rules.d"), { recursive: true });
  writeFileSync(join(root, "etc/udev/rules.d/59-blksnap.rules"), "");
  assert.is(checkSearches(host, ["/dev/ublkb1", "/dev/ublkb2"]).state, "ok");
  rmSync(root, { recursive: true });
});

test.run();
