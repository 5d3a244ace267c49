/**
 * A small command line over ublk devices, with the verbs and the output of the `rublk` and `ublk`
 * programs, so that scripts and blktests' ublk group can use it:
 *
 *   rublk add -t null|memory|loop [-f FILE] [-n ID] [-d DEPTH] [-b BYTES] [-s CAPACITY] [--foreground]
 *   rublk list [-n ID]      rublk del -n ID | -a      rublk features
 *
 * `add` leaves a process of its own behind that serves the device until it is deleted.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  featureNames,
  fileTarget,
  listDeviceIds,
  memoryTarget,
  nullTarget,
  UblkControl,
  UblkDevice,
} from "@blksnap/ublk";

const STATES = ["DEAD", "LIVE", "QUIESCED", "FAIL_IO"];
const STATE_DIR = "/run/blksnap-rublk";
const USAGE = "usage: rublk add|list|del|features [OPTIONS]";

const [command, ...words] = process.argv.slice(2);
const { values, positionals } = parseArgs({
  args: words,
  allowPositionals: true,
  options: {
    type: { type: "string", short: "t" },
    file: { type: "string", short: "f" },
    number: { type: "string", short: "n" },
    depth: { type: "string", short: "d", default: "128" },
    "io-buf": { type: "string", short: "b", default: "524288" },
    size: { type: "string", short: "s", default: String(250 << 20) },
    all: { type: "boolean", short: "a" },
    foreground: { type: "boolean" },
  },
});

function targetOf(type) {
  const capacityBytes = Number(values.size);
  switch (type) {
    case "null":
      return nullTarget({ capacityBytes });
    case "memory":
      return memoryTarget({ capacityBytes });
    case "loop":
      if (values.file === undefined) throw new Error("a loop device needs -f FILE");
      return fileTarget({ path: values.file });
    default:
      throw new Error(`unknown type "${type}": null, memory or loop`);
  }
}

/** Serves the device until it is deleted, or a signal comes. */
async function serve(type) {
  const device = await UblkDevice.start({
    target: targetOf(type),
    id: Number(values.number ?? -1),
    queueDepth: Number(values.depth),
    maxIoBytes: Number(values["io-buf"]),
    onError: (error) => console.error(error.message),
  });
  const state = `${STATE_DIR}/${device.id}.json`;
  mkdirSync(STATE_DIR, { recursive: true });
  writeFileSync(state, JSON.stringify({ name: type, dev_size: device.params.capacityBytes }));
  tell({ text: await withControl((control) => describe(control, device.id)) });
  const signalled = new Promise((resolve) => {
    process.once("SIGINT", resolve).once("SIGTERM", resolve);
  });
  await Promise.race([device.ended, signalled]);
  rmSync(state, { force: true });
  await device.stop();
}

/** Tells the caller, or the process that waits for this one and then ends. */
function tell({ text, error }) {
  if (process.send !== undefined) {
    process.send({ text, error });
    process.disconnect();
  } else if (error !== undefined) console.error(error);
  else console.log(text);
}

/** Starts a process that serves, and waits until it does or has failed. */
function add(type) {
  if (values.foreground) return serve(type);
  const self = fileURLToPath(import.meta.url);
  const args = [self, "add", ...words, "--foreground"];
  // It keeps none of the caller's descriptors: a reader of them would wait for it.
  const server = spawn(process.execPath, args, {
    detached: true,
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  server.unref();
  return new Promise((resolve, reject) => {
    server.once("message", ({ text, error }) => {
      if (error !== undefined) return reject(new Error(error));
      console.log(text);
      resolve();
    });
    server.once("exit", (status) => reject(new Error(`the server ended with ${status}`)));
  });
}

function read(path, otherwise = "0") {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return otherwise;
  }
}

async function describe(control, id) {
  const info = await control.deviceInfo(id);
  if (info === undefined) throw new Error(`no ublk device has number ${id}`);
  const block = `/sys/block/ublkb${id}`;
  const queues = Array.from({ length: info.queues }, (_, queue) => {
    const cpus = read(`${block}/mq/${queue}/cpu_list`, "").replaceAll(",", "");
    return `\tqueue ${queue}: tid ${info.serverPid} affinity(${cpus} )`;
  });
  const blockSize = read(`${block}/queue/logical_block_size`, "512");
  return [
    `dev id ${id}: nr_hw_queues ${info.queues} queue_depth ${info.queueDepth} block size ${blockSize} ` +
      `dev_capacity ${read(`${block}/size`)}`,
    `\tmax rq size ${info.maxIoBytes} daemon pid ${info.serverPid} ` +
      `flags 0x${info.features.toString(16)} state ${STATES[info.state] ?? info.state}`,
    `\tublkc: ${read(`/sys/class/ublk-char/ublkc${id}/dev`, "0:0")} ` +
      `ublkb: ${read(`${block}/dev`, "0:0")} owner: ${info.ownerUid}:${info.ownerGid}`,
    ...queues,
    `\ttarget ${read(`${STATE_DIR}/${id}.json`, "{}")}`,
  ].join("\n");
}

async function withControl(use) {
  const control = await UblkControl.open();
  try {
    return await use(control);
  } finally {
    control.close();
  }
}

function list(id) {
  return withControl(async (control) => {
    for (const each of id === undefined ? listDeviceIds() : [id]) {
      console.log(await describe(control, each));
    }
  });
}

function del() {
  if (!values.all && values.number === undefined) throw new Error("del needs -n ID or -a");
  return withControl(async (control) => {
    for (const id of values.all ? listDeviceIds() : [Number(values.number)]) {
      await control.stopDevice(id);
      await control.deleteDevice(id);
      // Deleted means gone: the number can be used again.
      for (let waited = 0; listDeviceIds().includes(id) && waited < 300; waited++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  });
}

async function features() {
  const bits = await withControl((control) => control.features);
  console.log(`ublk_drv features: 0x${bits.toString(16)}`);
  for (const name of featureNames(bits)) console.log(name);
}

try {
  const id = values.number === undefined ? undefined : Number(values.number);
  const type = values.type ?? positionals[0];
  if (command === "add") await add(type);
  else if (command === "list") await list(id);
  else if (command === "del") await del();
  else if (command === "features") await features();
  else throw new Error(USAGE);
} catch (error) {
  if (process.connected) tell({ error: error.message });
  else console.error(`rublk: ${error.message}`);
  process.exitCode = 1;
}
