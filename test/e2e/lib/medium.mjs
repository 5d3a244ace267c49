/** A file system on a disk, for the state of persistent trackers and for stores. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Daemon } from "./daemon.mjs";
import { loopDisk } from "./disks.mjs";
import { makeFileSystem, mount } from "./file-systems.mjs";

const SIZE_BYTES = 400 * 2 ** 20;

export async function medium(t) {
  const disk = await loopDisk(t, SIZE_BYTES);
  await makeFileSystem("ext4", disk);
  const { path } = await mount(t, disk);
  mkdirSync(join(path, "stores"));
  /** A daemon that does not serve yet. */
  const begin = (env = {}) =>
    new Daemon({ args: ["--persistent-dir", join(path, "state"), "--log-level", "info"], env });
  const start = async (env) => {
    const daemon = begin(env);
    await daemon.untilServing();
    return daemon;
  };
  return { path, stores: join(path, "stores"), state: join(path, "state"), begin, start };
}
