/** mount and umount: the files of an image, read-only by default. */
import { existsSync, readFileSync, realpathSync, type Stats, statSync } from "node:fs";
import { basename } from "node:path";
import type { StatusResponse } from "@blksnap/api";
import { imagesIn, whyFreed } from "../freed-image.js";
import { imageOf, removeLeftovers, takeDown } from "../lvm/leftovers.js";
import { idOfVolume } from "../lvm/names.js";
import { openVolume, withLeft } from "../lvm/volume.js";
import { type MountPlan, mountPlan, type Probed } from "../mount-plan.js";
import { mountedAt } from "../mount-table.js";
import { isNbdAddress } from "../nbd-address.js";
import { mountFailed as failed, run, runInTime } from "../programs.js";
import { realPathOf } from "../real-path.js";
import { resolveId } from "../resolve-id.js";
import { usageError } from "../usage-error.js";
import { parsePath, parseVolume } from "../values.js";
import type { Context, Given } from "../verb.js";

const TEMPORARY_FSID = "/sys/fs/btrfs/features/temp_fsid";
const IS_UBLK = /^\/dev\/ublkb[0-9]+$/;
/** Exit status of blkid: nothing was found. */
const NOTHING_FOUND = 2;
const PHYSICAL_VOLUME = "LVM2_member";
const BY_HAND = "Make a copy of its volume group by hand: vgimportclone(8), with a writable image";

function found(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** @throws BlksnapClientError USAGE */
function folderOf(text: string): string {
  const path = parsePath(text, "dir");
  if (found(path)?.isDirectory() !== true) {
    throw usageError(`${path} is not a folder`, "USAGE", "Make it first: mkdir -p");
  }
  return realpathSync(path);
}

/** What is mounted where: an image, or a volume in it. */
interface Wanted {
  readonly image: string;
  readonly dir: string;
}

/** @throws BlksnapClientError MOUNT_FAILED */
function checkWhole(snapshots: StatusResponse["snapshots"], image: string): void {
  const why = whyFreed(snapshots, image);
  if (why !== undefined) throw failed(why, "Wait until it has ended, or take a snapshot after it");
}

/** Else a damaged image looks as if it had no file system. */
function warnOfLoss({ warn }: Context, snapshots: StatusResponse["snapshots"], image: string) {
  const members = snapshots.flatMap(({ devices }) => devices);
  const isDamaged = members.some((one) => one.image === image && one.error_code !== 0);
  if (isDamaged) warn(`${image} has lost blocks, which give I/O errors: see blksnapctl status`);
}

/** An image of a daemon without ublk. @throws BlksnapClientError MOUNT_FAILED */
function refuseExport(image: string): void {
  if (!isNbdAddress(image)) return;
  const hint = "Connect it first, nbd-client -unix SOCKET -N NAME /dev/nbdN, and mount that";
  throw failed(`${image} is an NBD export, and no device`, hint);
}

/** Finds the image by its node, or by its device. @throws BlksnapClientError */
async function wantedBy(context: Context, given: Given): Promise<Wanted> {
  const { client } = context;
  const [first, second] = [given.need("image"), given.one("dir")];
  const device = given.one("device");
  if (device === undefined) {
    if (given.one("id") !== undefined) {
      throw usageError("id: it needs --device", "USAGE", "Give --device DEVICE as well");
    }
    if (second === undefined) {
      throw usageError(
        "Argument 'dir' is missed",
        "USAGE",
        "Give IMAGE DIR, or --device DEVICE DIR",
      );
    }
    refuseExport(first);
    const image = parsePath(first, "image");
    if (found(image)?.isBlockDevice() !== true) {
      throw usageError(
        `image: ${image} is not a block device`,
        "USAGE",
        "Give /dev/ublkbN; see status",
      );
    }
    const { snapshots, trackers } = await client.status();
    const real = realpathSync(image);
    if (imagesIn(snapshots).includes(real)) {
      checkWhole(snapshots, real);
      warnOfLoss(context, snapshots, real);
      return { image: real, dir: folderOf(second) };
    }
    const front = trackers.find((tracker) => tracker.front === real);
    const what = front === undefined ? "no image of a snapshot" : `the front of ${front.device}`;
    throw failed(`${image} is ${what}`, "Mount it by mount(8), or give an image: see status");
  }
  if (second !== undefined) {
    throw usageError(
      "device: it cannot be combined with an image",
      "USAGE",
      "Give --device DEVICE and DIR alone",
    );
  }
  const path = parsePath(device, "device");
  const id = given.one("id");
  const named = id === undefined ? undefined : await resolveId(client, id);
  const dir = folderOf(first);
  const info = await client.snapshotInfo(path);
  const wantedId = named ?? info.snapshot_id;
  if (info.snapshot_id === null || info.snapshot_id !== wantedId) {
    const which = wantedId === null ? "a snapshot" : `the snapshot ${wantedId}`;
    throw failed(`${path} is not in ${which}`, "See status for its snapshot");
  }
  if (info.image === null)
    throw failed(`there is no image of ${path} yet`, "Take the snapshot first");
  refuseExport(info.image);
  const { snapshots } = await client.status();
  checkWhole(snapshots, info.image);
  warnOfLoss(context, snapshots, info.image);
  return { image: info.image, dir };
}

async function probed(image: string): Promise<Probed> {
  const { status, out, err } = await runInTime("blkid", ["-p", "-o", "export", image]);
  if (status === NOTHING_FOUND && err === "") return {};
  if (status !== 0)
    throw failed(`cannot identify the content of ${image}: ${err || `status ${status}`}`);
  const pairs = out.split("\n").flatMap((line) => {
    const at = line.indexOf("=");
    return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1)] as const];
  });
  return Object.fromEntries(pairs);
}

function isReadOnly(image: string): boolean {
  try {
    return readFileSync(`/sys/class/block/${basename(image)}/ro`, "utf8").trim() === "1";
  } catch {
    return false;
  }
}

/** Returns the mount options. @throws BlksnapClientError MOUNT_FAILED */
async function mountBy(plan: MountPlan, { image, dir }: Wanted, isWritable: boolean) {
  const options = [isWritable ? "rw" : "ro", ...plan.options];
  const attempt = (all: readonly string[]) =>
    run("mount", "-t", plan.type, "-o", all.join(","), "--", image, dir);
  const { status, err } = await attempt(options);
  if (status === 0) return { options, isReplayed: true };
  const { withoutJournal } = plan;
  // Replay the journal into the image where possible: otherwise the latest writes are missing.
  if (!isWritable && withoutJournal !== undefined && isReadOnly(image)) {
    const all = [...options, withoutJournal];
    if ((await attempt(all)).status === 0) return { options: all, isReplayed: false };
  }
  throw failed(`${image} cannot be mounted as ${plan.type}: ${err || `status ${status}`}`);
}

/** @param hint where it is refused; undefined: that of the plan */
async function mountAs(content: Probed, wanted: Wanted, isWritable: boolean, hint?: string) {
  const { image, dir } = wanted;
  const host = { hasTemporaryFsid: existsSync(TEMPORARY_FSID) };
  const plan = mountPlan(image, content, host);
  if ("why" in plan) throw failed(`${image}: ${plan.why}`, hint ?? plan.hint);
  const { options, isReplayed } = await mountBy(plan, wanted, isWritable);
  const mounted = mountedAt(dir);
  if (mounted?.source !== image) {
    // A file system that knows its devices by their ids may refuse like this.
    await run("umount", dir);
    throw failed(
      `${mounted?.source ?? "nothing"} was mounted instead of ${image}; it was unmounted`,
    );
  }
  return { type: plan.type, options, isReplayed };
}

/** Of a logical volume in the image. */
async function mountVolume(context: Context, wanted: Wanted, given: Given) {
  const { image, dir } = wanted;
  if (given.has("writable")) {
    const hint = "Omit --writable; or take what is to be changed from the image to another volume";
    throw failed(`${image} has LVM, and changes to a volume in it would end with umount`, hint);
  }
  const { snapshots } = await context.client.status();
  const its = snapshots.filter((snapshot) => imagesIn([snapshot]).includes(image));
  for (const one of imagesIn(its)) checkWhole(snapshots, one);
  const volume = await openVolume({
    image,
    images: imagesIn(its),
    volume: volumeGiven(given),
    signal: context.untilInterrupted(),
  });
  try {
    const there = { image: volume.path, dir };
    const way = await mountAs(await probed(volume.path), there, false, BY_HAND);
    return { ...way, volume: volume.name };
  } catch (error) {
    throw withLeft(error, await volume.close());
  }
}

function volumeGiven(given: Given): string | undefined {
  const name = given.one("lv");
  return name === undefined ? undefined : parseVolume(name);
}

export async function mount(context: Context, given: Given): Promise<void> {
  const { json, print, printJson, warn } = context;
  volumeGiven(given);
  const wanted = await wantedBy(context, given);
  const { image, dir } = wanted;
  const isWritable = given.has("writable");
  if (isWritable && isReadOnly(image)) {
    throw failed(`${image} refuses writes`, "Omit --writable: the snapshot has read-only images");
  }
  const there = mountedAt(dir);
  if (there !== undefined)
    throw failed(`${there.source} is mounted at ${dir}`, "Give another folder");
  const content = await probed(image);
  const isVolume = content["TYPE"] === PHYSICAL_VOLUME;
  if (!isVolume && given.has("lv")) {
    throw failed(`${image} has no LVM in it`, "Omit --lv");
  }
  const { type, options, isReplayed, volume } = isVolume
    ? await mountVolume(context, wanted, given)
    : { ...(await mountAs(content, wanted, isWritable)), volume: null };
  if (json) printJson({ image, dir, type, options, journal_replayed: isReplayed, volume });
  else {
    const line = volume === null ? "" : `volume=${volume}\n`;
    print(`image=${image}\n${line}type=${type}\noptions=${options.join(",")}\n`);
  }
  if (!isReplayed) {
    warn(
      `the journal is not replayed, because ${image} is read-only: the last writes may be missing`,
    );
  }
}

/** Undefined without a daemon: an image that it has left can be unmounted all the same. */
async function statusOf({ client }: Context): Promise<StatusResponse | undefined> {
  return await client.status().catch(() => undefined);
}

export async function umount(context: Context, given: Given): Promise<void> {
  const { json, printJson } = context;
  const path = parsePath(given.need("dir"), "dir");
  // The file system of an image that is gone may hang: its name is enough.
  const dir = mountedAt(path) === undefined ? (realPathOf(path) ?? path) : path;
  const mounted = mountedAt(dir);
  if (mounted === undefined) {
    const left = await removeLeftovers().catch(() => []);
    throw withLeft(failed(`nothing is mounted at ${dir}`, "See findmnt"), left);
  }
  const { source } = mounted;
  const { trackers = [], snapshots = [] } = (await statusOf(context)) ?? {};
  const front = trackers.find((tracker) => tracker.front === source);
  const volume = idOfVolume(source);
  const isImage = imagesIn(snapshots).includes(source) || IS_UBLK.test(source);
  if (front !== undefined || !(isImage || volume !== undefined)) {
    const what = front === undefined ? "no image" : `the front of ${front.device}`;
    throw failed(`what is mounted at ${dir} is ${source}, ${what}`, "Unmount it by umount(8)");
  }
  const image = (volume === undefined ? undefined : imageOf(volume)) ?? source;
  const { status, err } = await run("umount", dir);
  if (status !== 0) {
    const hint = /busy/.test(err) ? `See its users: fuser -vm ${dir}` : undefined;
    throw failed(`${dir} cannot be unmounted: ${err || `status ${status}`}`, hint);
  }
  if (volume !== undefined) {
    const left = await takeDown(volume);
    if (left.length > 0) throw withLeft(failed(`${dir} is unmounted`), left);
  }
  if (json) printJson({ image, dir });
}
