/** A power cut while a volume is attached live and written to: the next boot has the volume by its own table. */
import { spawnSync } from "node:child_process";
import { ctl, sumOf } from "./stacks.mjs";
import { run } from "./volumes.mjs";

const VOLUME = "/dev/vg/other";
const FOLDER = "/srv/other";

const table = () => run("dmsetup", "table", VOLUME).trim();
const write = (file) =>
  run(
    ...["dd", "if=/dev/urandom", `of=${FOLDER}/${file}`, "bs=64k", "count=32"],
    ...["conv=notrunc,fsync", "status=none"],
  );

/** Attached, with something that is acknowledged, and a writer beside it. */
export function cutLive() {
  const own = table();
  write("before-live");
  ctl("attach", "--live", "--device", VOLUME);
  write("under-live");
  const sums = ["before-live", "under-live"].map((file) => sumOf(`${FOLDER}/${file}`));
  const load = `while :; do dd if=/dev/zero of=${FOLDER}/load bs=64k count=32 conv=fsync; done`;
  run("systemd-run", "sh", "-c", load);
  return { live: { table: own, sums } };
}

export function lookAfterCut() {
  const clones = run("dmsetup", "ls")
    .split("\n")
    .filter((line) => line.includes("-blksnap"));
  const sums = ["before-live", "under-live"].map((file) => sumOf(`${FOLDER}/${file}`));
  run("umount", FOLDER);
  const { status } = spawnSync("e2fsck", ["-fn", VOLUME]);
  run("mount", FOLDER);
  return { live: { table: table(), sums, clones, check: status } };
}
