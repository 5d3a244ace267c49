/** What scenarios of live attach share: a mounted node with a writer, and what is seen of nodes. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { BlksnapClientError } from "@blksnap/client";
import { run } from "./command.mjs";
import { linear } from "./device-mapper.mjs";
import { ramDisks } from "./disks.mjs";
import { makeFileSystem, mount } from "./file-systems.mjs";
import { MIB } from "./snapshots.mjs";

/** What mkfs asks for at least, with some room. */
const SIZE_BYTES = { "zeroed ext4": 64 * MIB, xfs: 320 * MIB };

/** Undefined where it succeeds. */
export async function codeOf(work) {
  const error = await work.then(
    () => undefined,
    (failure) => failure,
  );
  if (error !== undefined && !(error instanceof BlksnapClientError)) throw error;
  return error?.code;
}

export function tableOf(path) {
  return run(["dmsetup", "table", path]);
}

/** Names of all nodes of the device mapper. */
export function nodes() {
  return readdirSync("/sys/block")
    .filter((name) => name.startsWith("dm-"))
    .map(nameOf)
    .filter((name) => name !== undefined)
    .sort();
}

/** The name of a node of the device mapper; undefined where it is none, or has gone. */
export function nameOf(node) {
  try {
    return readFileSync(`/sys/block/${node}/dm/name`, "utf8").trim();
  } catch {
    // It has gone since the nodes were listed.
    return undefined;
  }
}

/** What users know the node by. */
export async function identityOf(path) {
  const info = await run([
    "dmsetup",
    "info",
    "-c",
    "--noheadings",
    "-o",
    "name,uuid,major,minor",
    path,
  ]);
  return `${info.trim()} ${statSync(path).ino}`;
}

/** Writes and verifies files of its own until it is stopped; fails where a byte is wrong or a call fails. */
export class Checker {
  #stopped = false;
  #running;
  rounds = 0;

  constructor(t, folder) {
    this.#running = this.#run(folder);
    this.#running.catch(() => undefined);
    // Also where the test fails: before the file system is unmounted.
    t.defer(() => this.stop());
  }

  async #run(folder) {
    while (!this.#stopped) {
      const words = [
        ...["fio", "--name=verify", `--filename=${join(folder, "verified")}`, "--size=4M"],
        ...["--rw=randwrite", "--bs=4k", "--ioengine=psync", "--direct=1", "--verify=crc32c"],
        ...["--do_verify=1", "--verify_fatal=1", "--fsync=64", `--randseed=${this.rounds + 1}`],
      ];
      await run(words);
      this.rounds++;
    }
  }

  async stop() {
    this.#stopped = true;
    await this.#running;
  }
}

/** A mounted node with a file system under a writer. */
export async function usedNode(t, type = "zeroed ext4") {
  const [disk] = await ramDisks(t, 1, SIZE_BYTES[type]);
  const node = await linear(t, disk);
  await makeFileSystem(type, node);
  const mounted = await mount(t, node);
  await run(["sh", "-c", "head -c 8M /dev/urandom > kept; sync -f ."], { cwd: mounted.path });
  return { node, ...mounted };
}
