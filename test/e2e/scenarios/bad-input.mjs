/** Invalid requests are refused with named errors, leave nothing behind, and never end the daemon. */
import { connect } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { run } from "../lib/command.mjs";
import { ctl, ctlProgram } from "../lib/ctl.mjs";
import { SOCKET_PATH } from "../lib/daemon.mjs";
import { imageFile, loopDisk } from "../lib/disks.mjs";
import { makeFileSystem, mount } from "../lib/file-systems.mjs";
import { NO_ID, refused, stateOf } from "../lib/refused.mjs";
import { scenario } from "../lib/scenario.mjs";
import { attach, MIB, storeFolder, takeSnapshot } from "../lib/snapshots.mjs";

const test = scenario(import.meta.url);
const ENOENT = 2;
const EBUSY = 16;
const EINVAL = 22;
const ENOSPC = 28;
const EROFS = 30;
const EOPNOTSUPP = 95;
const EALREADY = 114;

test("attach refuses devices that cannot be tracked", async (t) => {
  const attachIt = (path) => () => t.client.attach(path);
  await refused(t, "DEVICE_NOT_FOUND", ENOENT, attachIt("/dev/no-such-device"));
  await refused(t, "DEVICE_NOT_BLOCK", 21, attachIt(t.folder));
  await refused(t, "DEVICE_NOT_BLOCK", 15, attachIt("/dev/null"));
  await refused(t, "DEVICE_TOO_SMALL", EINVAL, attachIt(imageFile(t, 65536)));
  const readOnly = await loopDisk(t, MIB, { readOnly: true });
  await refused(t, "DEVICE_READ_ONLY", EROFS, attachIt(readOnly));
  const used = await loopDisk(t, 8 * MIB);
  await makeFileSystem("ext4", used);
  const mounted = await mount(t, used);
  await refused(t, "DEVICE_BUSY", EBUSY, attachIt(used));
  await mounted.unmount();
});

test("attach and detach are refused at the wrong time", async (t) => {
  const device = await loopDisk(t, 8 * MIB);
  const { front } = await attach(t, device);
  // As for the module's tool, a second attach is not a failure.
  assert.is((await t.client.attach(device)).already_attached, true);
  assert.is((await t.client.attach(front)).already_attached, true);
  await makeFileSystem("ext4", front);
  const mounted = await mount(t, front);
  await refused(t, "FRONT_IN_USE", EBUSY, () => t.client.detach(device));
  await mounted.unmount();
  const snapshot = await takeSnapshot(t, [device]);
  await refused(t, "DEVICE_IN_SNAPSHOT", EBUSY, () => t.client.detach(device));
  await refused(t, "DEVICE_IS_OURS", 40, () => t.client.attach(snapshot.images[0]));
  await snapshot.destroy();
  const other = imageFile(t, MIB);
  await refused(t, "NOT_ATTACHED", ENOENT, () => t.client.detach(other));
  await refused(t, "NOT_ATTACHED", ENOENT, () => t.client.cbtInfo(other));
});

test("snapshot_create refuses invalid limits and stores", async (t) => {
  const device = imageFile(t, 4 * MIB);
  const folder = storeFolder(t);
  const create = (changes) => () =>
    t.client.snapshotCreate({ devices: [device], stores: [folder], limitBytes: MIB, ...changes });
  await refused(t, "LIMIT_INVALID", EINVAL, create({ limitBytes: 0 }));
  await refused(t, "LIMIT_INVALID", EINVAL, create({ limitBytes: "much" }));
  await refused(t, "LIMIT_INVALID", EINVAL, create({ limitBytes: 1e300 }));
  await refused(t, "STORE_NOT_FOUND", ENOENT, create({ stores: [join(folder, "none")] }));
  await refused(t, "STORE_INVALID", EINVAL, create({ stores: ["/dev/null"] }));
  await refused(t, "REQUEST_INVALID", EINVAL, create({ stores: [] }));
  await refused(t, "REQUEST_INVALID", EINVAL, create({ stores: ["relative"] }));
  await refused(t, "DEVICE_NOT_FOUND", ENOENT, create({ devices: [device, "/dev/none"] }));
  await refused(t, "DEVICE_ALREADY_IN_SNAPSHOT", EALREADY, create({ devices: [device, device] }));
});

test("snapshot_create refuses a store that is full, or lies on a member", async (t) => {
  const full = join(t.folder, t.name("full-"));
  await run(["mkdir", full]);
  t.defer(() => run(["rmdir", full]));
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", full]);
  t.defer(() => run(["umount", full]));
  await run(["dd", "if=/dev/zero", `of=${full}/filler`, "bs=64k", "count=15"]);
  const device = await loopDisk(t, 16 * MIB);
  const create = (stores) => () =>
    t.client.snapshotCreate({ devices: [device], stores, limitBytes: 8 * MIB });
  await refused(t, "STORE_FULL", ENOSPC, create([full]));
  const { front } = await attach(t, device);
  await makeFileSystem("ext4", front);
  const { path } = await mount(t, front);
  await refused(t, "STORE_ON_DEVICE", EBUSY, create([path]));
  // Nor on a device of no snapshot: killed while it waits for its own front, the daemon could not end.
  const other = await loopDisk(t, 16 * MIB);
  const createOther = (store) => () =>
    t.client.snapshotCreate({ devices: [other], stores: [store], limitBytes: 8 * MIB });
  await refused(t, "STORE_ON_DEVICE", EBUSY, createOther(path));
  await refused(t, "STORE_ON_DEVICE", EBUSY, createOther(join(path, "lost+found")));
  const { front: raw } = await attach(t, await loopDisk(t, 16 * MIB));
  await refused(t, "STORE_ON_DEVICE", EBUSY, createOther(raw));
  assert.is((await t.client.status()).trackers.length, 2);
});

test("invalid ids and files are refused", async (t) => {
  const { client } = t;
  await refused(t, "ID_INVALID", EINVAL, () => client.snapshotTake("no-uuid"));
  await refused(t, "ID_INVALID", EINVAL, () => client.waitEvent(`${NO_ID}x`, 0));
  const device = imageFile(t, 4 * MIB);
  await attach(t, device);
  await refused(t, "CBT_NUMBER_UNKNOWN", EINVAL, () => client.diff(device, 7));
  await refused(t, "FILE_NOT_FOUND", ENOENT, () => client.markDirtyFile("/no/such/file"));
  await refused(t, "FILE_NOT_MAPPABLE", EOPNOTSUPP, () => client.markDirtyFile(t.folder));
  await refused(t, "NOT_ATTACHED", ENOENT, () => client.markDirtyFile(device));
});

/** Sends bytes to the socket and waits until the daemon has closed the connection. */
function sendRaw(text, { thenEnd = true } = {}) {
  return new Promise((done, fail) => {
    const socket = connect(SOCKET_PATH);
    let answer = "";
    socket.on("data", (chunk) => (answer += chunk));
    // The daemon need not read what it has refused already.
    const expected = ["EPIPE", "ECONNRESET"];
    socket.on("error", (error) => (expected.includes(error.code) ? undefined : fail(error)));
    socket.on("close", () => done(answer));
    socket.write(text);
    if (thenEnd) socket.end();
    else setTimeout(() => socket.destroy(), 100);
  });
}

function post(path, body) {
  const head = `POST ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n`;
  return `${head}content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

test("malformed requests are refused", async (t) => {
  const statusOf = async (text) => Number(/^HTTP\/1.1 (\d+)/.exec(await sendRaw(text))?.[1]);
  assert.is(await statusOf("\0\x01\x02 garbage\r\n\r\n"), 400);
  assert.is(await statusOf(post("/v1/trackers", "{")), 400);
  assert.is(await statusOf(post("/v1/trackers", '{"device": 7}')), 400);
  assert.is(await statusOf(post("/v1/trackers", '{"device": "/dev/x", "more": 1}')), 400);
  assert.is(await statusOf(post("/v1/none", "{}")), 404);
  const tooLarge = `content-type: application/json\r\ncontent-length: ${2 * MIB}\r\n\r\n`;
  assert.is(await statusOf(`POST /v1/trackers HTTP/1.1\r\nhost: x\r\n${tooLarge}`), 413);
  await sendRaw("POST /v1/trackers HTTP/1.1\r\ncontent-length: 100\r\n\r\n{", { thenEnd: false });
  assert.equal(await stateOf(t), { trackers: [], snapshots: [] });
});

/** One line on the error output that says what and what to do; the name and errno in JSON. */
async function assertCommandRefused(runCtl, status, name, args) {
  const answer = await runCtl(...args, "--json");
  assert.is(answer.status, status, answer.stderr);
  assert.match(answer.stderr, /^blksnapctl: [^\n]+\. [^\n]+\.( \[[A-Z_]+\])?\n$/);
  assert.is(JSON.parse(answer.stdout).error.name, name);
}

test("the command line reports errors on one line, by name", async (t) => {
  const device = imageFile(t, 4 * MIB);
  const store = storeFolder(t);
  const create = (...more) => ["snapshot_create", "-d", device, ...more];
  const table = [
    [1, "DEVICE_NOT_FOUND", ["attach", "--device", "/dev/none"]],
    [1, "DEVICE_NOT_BLOCK", ["attach", "--device", t.folder]],
    [2, "LIMIT_INVALID", create("-f", store, "-l", "0")],
    [2, "LIMIT_INVALID", create("-f", store, "-l", "lots")],
    [1, "STORE_NOT_FOUND", create("-f", "/none", "-l", "1M")],
    [2, "ID_INVALID", ["snapshot_take", "--id", "nonsense"]],
    [1, "SNAPSHOT_NOT_FOUND", ["snapshot_take", "--id", NO_ID]],
    [1, "NOT_ATTACHED", ["cbtinfo", "--device", device]],
    [1, "DAEMON_NOT_RUNNING", ["status", "--socket", "/run/no-daemon.sock"]],
  ];
  for (const row of table) await assertCommandRefused(ctl, ...row);
  await assertCommandRefused(ctlProgram, ...table[0]);
});

test("a user outside of the group cannot use the socket", async () => {
  process.seteuid(65534);
  try {
    const { status, stderr } = await ctl("status");
    assert.is(status, 1);
    assert.match(
      stderr,
      /blksnapctl: status: may not use .* group blksnap\. \[SOCKET_NOT_PERMITTED\]\n$/,
    );
  } finally {
    process.seteuid(0);
  }
});

test.run();
