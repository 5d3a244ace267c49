/**
 * 300 requests that make no sense, to a daemon whose device carries a mounted file system under load: each is refused
 * with the right error name, and neither the daemon nor the load is affected. Ten thousand and
 * their memory, without devices: packages/api-server/test/control-fuzz.test.ts.
 */
import { rmSync, symlinkSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { SOCKET_PATH } from "../lib/daemon.mjs";
import { imageFile, loopDisk, nullDisk } from "../lib/disks.mjs";
import { checkFileSystem, makeFileSystem, mount } from "../lib/file-systems.mjs";
import { endFio, startLoad } from "../lib/fio.mjs";
import { holdings, ublkDevices } from "../lib/leftovers.mjs";
import { seededRandom, seedsOr } from "../lib/random.mjs";
import { NO_ID, stateOf } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url);
const REQUESTS = 300;
/** What is created on first use exists. */
const WARM_UP_REQUESTS = 60;
const AT_ONCE = 4;
/** What is under way shows in the output of a run that is ended from outside. */
const PROGRESS_EACH = 100;
const ANSWER_LIMIT_MS = 300_000;
/** One in so many makes the daemon examine devices, which takes long in an emulated guest. */
const SLOW_EACH = 30;
/** Generous: it ends what hangs. */
const TIME_LIMIT_MS = 1_500_000;
/** Longer than the test may take. */
const LOAD_S = 1600;

/** Sends requests one after the other over connections that stay open. */
class Sender {
  #agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });

  send({ method, path, body }) {
    const text = typeof body === "object" ? JSON.stringify(body) : body;
    const headers = text === undefined ? {} : { "content-type": "application/json" };
    return new Promise((done, fail) => {
      const options = { agent: this.#agent, socketPath: SOCKET_PATH, method, path, headers };
      const outgoing = request(options, (response) => {
        let answer = "";
        response.setEncoding("utf8");
        response.on("data", (part) => (answer += part));
        response.on("error", fail);
        response.on("end", () => done({ status: response.statusCode, answer }));
      });
      outgoing.setTimeout(ANSWER_LIMIT_MS, () => {
        outgoing.destroy(new Error(`no answer to ${method} ${path.slice(0, 200)}`));
      });
      outgoing.on("error", fail);
      outgoing.end(text);
    });
  }

  close() {
    this.#agent.destroy();
  }
}

const post = (path, body) => ({ method: "POST", path, body });
const get = (path, query = {}) => {
  const text = new URLSearchParams(query).toString();
  return { method: "GET", path: text === "" ? path : `${path}?${text}` };
};
const remove = (path, query) => ({ ...get(path, query), method: "DELETE" });

/** Paths that cannot be tracked, with the name under which attach refuses each. */
async function untrackable(t, { image, mountPath, fileOnFront }) {
  const used = await loopDisk(t, 8 * MIB);
  await makeFileSystem("ext4", used);
  await mount(t, used);
  const pipe = join(t.folder, "pipe");
  await run(["mkfifo", pipe]);
  t.defer(() => rmSync(pipe));
  const loop = join(t.folder, "loop");
  symlinkSync(loop, loop);
  t.defer(() => rmSync(loop));
  const gone = join(t.folder, "gone");
  await run(["mknod", gone, "b", "120", "0"]);
  t.defer(() => rmSync(gone));
  return [
    ["DEVICE_NOT_FOUND", "/dev/no-such-device"],
    ["DEVICE_NOT_FOUND", `/${"x".repeat(300)}`],
    ["DEVICE_NOT_FOUND", `/dev/${"x/".repeat(2000)}`],
    ["DEVICE_NOT_FOUND", "/dev/null/below"],
    ["DEVICE_NOT_FOUND", loop],
    ["DEVICE_NOT_FOUND", gone],
    ["DEVICE_NOT_BLOCK", "/"],
    ["DEVICE_NOT_BLOCK DEVICE_OVERLAPS", mountPath],
    ["DEVICE_NOT_BLOCK", "/dev/null"],
    ["DEVICE_NOT_BLOCK", pipe],
    ["DEVICE_NOT_BLOCK", SOCKET_PATH],
    ["DEVICE_NOT_BLOCK", imageFile(t, 0)],
    ["DEVICE_TOO_SMALL", imageFile(t, 65536)],
    ["DEVICE_READ_ONLY", await loopDisk(t, MIB, { readOnly: true })],
    ["DEVICE_BUSY", used],
    ["DEVICE_IS_OURS", image],
    ["DEVICE_OVERLAPS", fileOnFront],
  ];
}

/** Requests about one device that is tracked and taken, and one that is tracked only. */
function aboutTracked({ id, device, front, free, mountPath }) {
  const dirty = (offset_bytes, length_bytes) =>
    post("/v1/trackers/cbt/dirty", { device, ranges: [{ offset_bytes, length_bytes }] });
  const create = (changes) =>
    post("/v1/snapshots", { devices: [], stores: ["memory:"], limit_bytes: MIB, ...changes });
  const map = (first_block, block_count) =>
    get("/v1/trackers/cbt/map", { device, first_block, block_count });
  return [
    ["FRONT_IN_USE DEVICE_IN_SNAPSHOT", remove("/v1/trackers", { device: front })],
    ["CBT_RANGE", map(1_000_000, 1)],
    ["CBT_RANGE", map(0, MIB)],
    ["REQUEST_INVALID", map(0, 2 * MIB)],
    ["CBT_NUMBER_UNKNOWN", get("/v1/trackers/cbt/diff", { device, since: 200 })],
    ["REQUEST_INVALID", get("/v1/trackers/cbt/diff", { device, since: 255 })],
    [
      "CBT_GENERATION_CHANGED",
      get("/v1/trackers/cbt/diff", { device, since: 0, generation: NO_ID }),
    ],
    ["MARK_RANGE", dirty(2 ** 49, 4096)],
    ["MARK_RANGE", dirty(2 ** 53 - 512, 2 ** 53 - 512)],
    ["REQUEST_INVALID", dirty(2 ** 53, 512)],
    ["REQUEST_INVALID", dirty(100, 512)],
    ["REQUEST_INVALID", dirty(0, 0)],
    ["FILE_NOT_FOUND", post("/v1/trackers/cbt/dirty_file", { file: join(mountPath, "none") })],
    ["FILE_NOT_MAPPABLE", post("/v1/trackers/cbt/dirty_file", { file: mountPath })],
    ["NOT_ATTACHED", post("/v1/trackers/cbt/dirty_file", { file: "/proc/version" })],
    ["SNAPSHOT_ALREADY_TAKEN", post(`/v1/snapshots/${id}/take`)],
    ["SNAPSHOT_ALREADY_TAKEN", post(`/v1/snapshots/${id}/devices`, { device: free })],
    ["DEVICE_IN_OTHER_SNAPSHOT", create({ devices: [device] })],
    ["DEVICE_ALREADY_IN_SNAPSHOT", create({ devices: [free, free] })],
    ["DEVICE_NOT_FOUND", create({ devices: [free, "/dev/none"] })],
    ["STORE_NOT_FOUND", create({ devices: [free], stores: ["/none"] })],
    ["STORE_INVALID", create({ devices: [free], stores: ["/dev/null"] })],
    ["STORE_ON_DEVICE", create({ devices: [free], stores: [device] })],
    ["LIMIT_INVALID", create({ limit_bytes: 511 })],
    ["LIMIT_INVALID", create({ limit_bytes: -1 })],
  ];
}

/** Requests that are wrong whatever there is. */
const alwaysWrong = [
  ["SNAPSHOT_NOT_FOUND", post(`/v1/snapshots/${NO_ID}/take`)],
  ["SNAPSHOT_NOT_FOUND", post(`/v1/snapshots/${NO_ID}/devices`, { device: "/dev/none" })],
  ["SNAPSHOT_NOT_FOUND", remove(`/v1/snapshots/${NO_ID}`)],
  ["SNAPSHOT_NOT_FOUND", get(`/v1/snapshots/${NO_ID}/events`, { timeout_ms: 1000 })],
  ["SNAPSHOT_NOT_FOUND", get(`/v1/snapshots/${NO_ID}/events/follow`)],
  ["ID_INVALID", post("/v1/snapshots/7/take")],
  ["ROUTE_NOT_FOUND", get("/v1/nothing")],
  ["METHOD_NOT_ALLOWED", { ...post("/v1/status", {}), method: "PUT" }],
  ["REQUEST_INVALID", get("/v1/status", { more: 1 })],
  ["REQUEST_INVALID", post("/v1/trackers", "{")],
  ["REQUEST_INVALID", post("/v1/trackers", { device: 7 })],
  ["REQUEST_INVALID", post("/v1/trackers", { device: "/dev/x", force: true })],
  ["REQUEST_INVALID", post("/v1/trackers", `${"[".repeat(1000)}${"]".repeat(1000)}`)],
  ["REQUEST_INVALID", post("/v1/trackers", `{"device":"/${"x".repeat(5000)}"}`)],
];

function sockets(pid) {
  return holdings(pid).filter((name) => name === "socket").length;
}

/** What it holds, except its connections. */
function heldFiles(pid) {
  return holdings(pid).filter((name) => name !== "socket");
}

function connectionsClosed(pid, idle) {
  return until("the daemon has closed the connections", () => sockets(pid) <= idle);
}

/** Fails unless the request is refused by one of the names. */
async function assertRefused(sender, names, wrong) {
  const { status, answer } = await sender.send(wrong);
  const what = `${JSON.stringify(wrong).slice(0, 200)}: ${status} ${answer.slice(0, 300)}`;
  assert.ok(status >= 400, what);
  assert.ok(names.split(" ").includes(JSON.parse(answer).error.name), what);
}

/** Mostly those that are refused at once: the others make the daemon examine devices first. */
async function sendMany({ quick, slow }, count, random) {
  const sender = new Sender();
  let left = count;
  async function worker() {
    while (left-- > 0) {
      if (left % PROGRESS_EACH === 0) console.log(`${left} to go`);
      await assertRefused(sender, ...random.pick(random.once(SLOW_EACH) ? slow : quick));
    }
  }
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  } finally {
    // The first failure ends the others too.
    left = 0;
    sender.close();
  }
}

/** A mounted file system on a tracked device, in a taken snapshot, and a device that is tracked only. */
async function scene(t) {
  const device = await nullDisk(t, { sizeMib: 96 });
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const { path: mountPath, unmount } = await mount(t, front);
  // It goes with its file system, before the test ends.
  const fileOnFront = join(mountPath, "disk");
  await run(["truncate", "--size", String(MIB), fileOnFront]);
  const free = imageFile(t, 4 * MIB);
  await attach(t, free);
  const { id, images, destroy } = await takeSnapshot(t, [device], { stores: [storeFolder(t)] });
  return { id, device, front, free, mountPath, fileOnFront, image: images[0], unmount, destroy };
}

test(
  "300 wrong requests leave nothing, and a load on the device runs through",
  async (t) => {
    const there = await scene(t);
    const idle = sockets(t.daemon.pid);
    const attaching = (await untrackable(t, there)).map(([name, device]) => [
      name,
      post("/v1/trackers", { device }),
    ]);
    const about = aboutTracked(there);
    const isSlow = ([, { path, body }]) => path === "/v1/snapshots" && body.devices.length > 0;
    const table = {
      slow: [...attaching, ...about.filter(isSlow)],
      quick: [...about.filter((row) => !isSlow(row)), ...alwaysWrong],
    };
    const [seed] = seedsOr([String(Date.now())]);
    console.log(`SEED=${seed}`);
    const random = seededRandom(seed);
    const sender = new Sender();
    // Each of them once, in addition to the random ones.
    for (const row of [...table.slow, ...table.quick]) await assertRefused(sender, ...row);
    sender.close();
    const load = await startLoad(
      t,
      join(there.mountPath, "load"),
      // Few requests: the guest's processors are for the daemon.
      {
        rw: "randwrite",
        bs: "4k",
        size: "16m",
        direct: 1,
        rate_iops: 50,
        allow_file_create: 1,
        runtime: LOAD_S,
      },
      { device: there.device },
    );
    const { pid } = t.daemon;
    await sendMany(table, WARM_UP_REQUESTS, random);
    const before = { state: await stateOf(t), devices: ublkDevices(), held: heldFiles(pid) };
    await sendMany(table, REQUESTS, random);
    await connectionsClosed(pid, idle);
    assert.equal(await stateOf(t), before.state);
    assert.equal(ublkDevices(), before.devices);
    assert.equal(heldFiles(pid), before.held);
    await endFio(load);
    const { trackers } = await t.client.status();
    assert.is(trackers.find(({ device }) => device === there.device).io.errors, 0);
    await there.destroy();
    await there.unmount();
    await checkFileSystem("ext4", there.front);
  },
  { timeLimitMs: TIME_LIMIT_MS },
);

test.run();
