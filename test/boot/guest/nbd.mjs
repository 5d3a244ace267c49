/** The first NBD client of a boot starts the daemon, by blksnapd-nbd.socket. */
import assert from "node:assert/strict";
import { existsSync, renameSync } from "node:fs";
import { connect } from "node:net";
import { ctl, run } from "./stacks.mjs";

const SOCKET = "/run/blksnap/nbd.sock";
const CONFIGS = ["/etc/blksnap/blksnap.toml", "/etc/blksnap/blksnap.toml.d"];
const VOLUME = "/dev/vg/swap";
const stateOf = (unit) => run("systemctl", "show", "-P", "ActiveState", unit).trim();

const OPTION_MAGIC = Buffer.from("IHAVEOPT");
const OPTION_LIST = 3;
const REPLY_ACK = 1;
const REPLY_HEADER_BYTES = 20;

/** The names of all exports, by NBD_OPT_LIST; it waits for as long as the server takes. */
async function exportsAt(path) {
  const socket = connect(path);
  const chunks = [];
  let wake = () => undefined;
  socket.on("data", (chunk) => {
    chunks.push(chunk);
    wake();
  });
  const failed = new Promise((_, reject) => {
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the server has closed the connection")));
  });
  failed.catch(() => undefined);
  const read = async (length) => {
    let all = Buffer.concat(chunks.splice(0));
    while (all.length < length) {
      await Promise.race([
        failed,
        new Promise((resolve) => {
          wake = resolve;
          if (chunks.length > 0) resolve();
        }),
      ]);
      all = Buffer.concat([all, ...chunks.splice(0)]);
    }
    chunks.unshift(all.subarray(length));
    return all.subarray(0, length);
  };
  const greeting = await read(18);
  assert.equal(greeting.subarray(0, 16).toString(), "NBDMAGICIHAVEOPT");
  const flags = Buffer.alloc(4);
  // Fixed new style, no zeroes.
  flags.writeUInt32BE(3);
  const list = Buffer.alloc(8);
  list.writeUInt32BE(OPTION_LIST);
  socket.write(Buffer.concat([flags, OPTION_MAGIC, list]));
  const names = [];
  for (;;) {
    const header = await read(REPLY_HEADER_BYTES);
    const data = await read(header.readUInt32BE(16));
    if (header.readUInt32BE(12) === REPLY_ACK) break;
    names.push(data.subarray(4, 4 + data.readUInt32BE(0)).toString());
  }
  socket.destroy();
  return names;
}

/** For the next boot: nothing but the socket starts the daemon. */
export function armNbd() {
  for (const path of CONFIGS.filter((one) => existsSync(one))) renameSync(path, `${path}.away`);
  run("systemctl", "disable", "blksnapd.service");
  run("systemctl", "enable", "blksnapd-nbd.socket");
  return {};
}

function disarm() {
  const isAway = (path) => existsSync(`${path}.away`);
  for (const path of CONFIGS.filter(isAway)) renameSync(`${path}.away`, path);
  run("systemctl", "enable", "blksnapd.service");
  run("systemctl", "disable", "blksnapd-nbd.socket");
}

export async function firstNbdClient() {
  const before = { daemon: stateOf("blksnapd.service"), socket: stateOf("blksnapd-nbd.socket") };
  try {
    const first = await exportsAt(SOCKET);
    ctl("attach", "--device", VOLUME);
    const room = ["--file", "/var/tmp", "--limit", "64M"];
    const id = ctl("snapshot_create", "--device", VOLUME, ...room).trim();
    ctl("snapshot_take", "--id", id);
    const second = await exportsAt(SOCKET);
    // It answers clients before systemd has heard that it is ready: that is waited for.
    run("systemctl", "start", "blksnapd.service");
    const after = stateOf("blksnapd.service");
    ctl("snapshot_destroy", "--id", id);
    ctl("detach", "--device", VOLUME);
    return { before, after, first, second };
  } finally {
    disarm();
  }
}
