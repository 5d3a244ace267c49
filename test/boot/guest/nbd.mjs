/** The first NBD client of a boot starts the daemon, by blksnapd-nbd.socket; by TCP, systemd's socket serves. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { ctl } from "./stacks.mjs";
import { run } from "./volumes.mjs";

const SOCKET = "/run/blksnap/nbd.sock";
const CONFIGS = ["/etc/blksnap/blksnap.toml", "/etc/blksnap/blksnap.toml.d"];
/** Without TLS, which needs certificates: only the socket is tested here. */
const TCP = { host: "127.0.0.1", port: 10_809 };
const TCP_CONFIG = `[daemon]
nbd-listen = "${TCP.host}:${TCP.port}"
nbd-insecure = true
`;
const TCP_SOCKET = "blksnapd-nbd-tcp.socket";
const TCP_DROP_IN = `/etc/systemd/system/${TCP_SOCKET}.d`;
const VOLUME = "/dev/vg/swap";
const stateOf = (unit) => run("systemctl", "show", "-P", "ActiveState", unit).trim();

const OPTION_MAGIC = Buffer.from("IHAVEOPT");
const OPTION_LIST = 3;
const REPLY_ACK = 1;
const REPLY_HEADER_BYTES = 20;

/** The names of all exports, by NBD_OPT_LIST; it waits for as long as the server takes. */
async function exportsAt(where) {
  const socket = connect(where);
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
  run("systemctl", "enable", "blksnapd-nbd.socket", TCP_SOCKET);
  writeFileSync(CONFIGS[0], TCP_CONFIG);
  mkdirSync(TCP_DROP_IN, { recursive: true });
  const listens = `[Socket]\nListenStream=\nListenStream=${TCP.host}:${TCP.port}\n`;
  writeFileSync(`${TCP_DROP_IN}/address.conf`, listens);
  return {};
}

function disarm() {
  rmSync(CONFIGS[0]);
  rmSync(TCP_DROP_IN, { recursive: true });
  const isAway = (path) => existsSync(`${path}.away`);
  for (const path of CONFIGS.filter(isAway)) renameSync(`${path}.away`, path);
  run("systemctl", "enable", "blksnapd.service");
  run("systemctl", "disable", "blksnapd-nbd.socket", TCP_SOCKET);
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
    // Under a unit that allows no Internet sockets.
    const byTcp = await exportsAt(TCP);
    // It answers clients before systemd has heard that it is ready: that is waited for.
    run("systemctl", "start", "blksnapd.service");
    const after = stateOf("blksnapd.service");
    ctl("snapshot_destroy", "--id", id);
    ctl("detach", "--device", VOLUME);
    return { before, after, first, second, byTcp };
  } finally {
    disarm();
  }
}
