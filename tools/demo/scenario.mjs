/** The steps of the demo. */
import { existsSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import {
  changeFiles,
  checkChecksums,
  chooseFiles,
  fill,
  folderBytes,
  listChecksums,
} from "./lib/files.mjs";
import { countRecords, Ledger } from "./lib/ledger.mjs";
import { Product } from "./lib/product.mjs";
import { REPOSITORY } from "./lib/program.mjs";
import { backUp, CONTENTS, makeFolder, mebibytes, must } from "./lib/steps.mjs";
import { Volume } from "./lib/volume.mjs";

const FILES_PER_VOLUME = 300;
const RECORDS_BEFORE_TAKE = 20;
const DIFF_LINES_SHOWN = 12;

/** What has been written to both fronts. */
async function bytesWritten(product) {
  const { trackers } = await product.client.status();
  return trackers.reduce((sum, { io }) => sum + io.write_bytes, 0);
}

function total(parts, key) {
  return parts.reduce((sum, part) => sum + part[key], 0);
}

async function makeVolumes(stage) {
  const { screen, cleanup, folder, product } = stage;
  screen.step("Two volumes: 128 MiB of ext4 each");
  const volumes = CONTENTS.map(({ name }) => new Volume(folder, name, cleanup));
  for (const { device } of volumes) await product.system(["mkfs.ext4", "-q", "-F", device]);
  return volumes;
}

async function attach(stage) {
  const { screen, product, volumes } = stage;
  screen.step("blksnapd puts a front before each; the fronts are mounted instead of the originals");
  await product.start();
  for (const volume of volumes) {
    const output = await product.ctl(["attach", "--device", volume.device]);
    volume.front = /^front=(.+)$/m.exec(output)[1];
    screen.command((await volume.mount(volume.front, volume.live, [])).join(" "));
  }
}

async function fillVolumes(stage) {
  const { screen, cleanup, volumes } = stage;
  screen.step("Real files, and a list of their checksums");
  const modules = join(REPOSITORY, "node_modules");
  for (const [index, volume] of volumes.entries()) {
    const sources = chooseFiles(modules, CONTENTS[index].matches, FILES_PER_VOLUME);
    volume.names = await screen.during(`copying files to ${volume.name}`, () =>
      fill(volume.liveFiles, sources, modules),
    );
    volume.bytes = sources.reduce((sum, { size }) => sum + size, 0);
    volume.listed = await screen.during(`sha256sum of ${volume.name}`, () =>
      listChecksums(volume.liveFiles, volume.listPath, cleanup.signal),
    );
    must(volume.listed === volume.names.length, `${volume.listPath} is not complete`);
    screen.success(`${volume.name}: ${volume.listed} files, ${mebibytes(volume.bytes)}`);
  }
}

/** Takes the snapshot while a program writes to both volumes. */
async function takeWhileWriting(stage) {
  const { screen, cleanup, product, volumes, folder } = stage;
  screen.step("One snapshot of both volumes at one instant, while a program writes to both");
  const ledger = new Ledger(volumes.map(({ live }) => join(live, "ledger")));
  ledger.start();
  const stopLedger = cleanup.add("the writing program", () => ledger.stop());
  const id = (
    await product.ctl([
      "snapshot_create",
      ...volumes.flatMap(({ device }) => ["--device", device]),
      ...["--file", folder, "--limit", "256M"],
    ])
  ).trim();
  await ledger.reach(RECORDS_BEFORE_TAKE);
  const writtenBefore = await bytesWritten(product);
  const taken = JSON.parse(await product.ctl(["snapshot_take", "--id", id, "--json"]));
  await ledger.reach(ledger.records + RECORDS_BEFORE_TAKE);
  await stopLedger();
  for (const volume of volumes) {
    volume.image = taken.images.find(({ device }) => device === volume.device).image;
    screen.command((await volume.mount(volume.image, volume.frozen, ["-o", "ro"])).join(" "));
  }
  const inLive = volumes.map(({ live }) => countRecords(join(live, "ledger")));
  const [first, second] = volumes.map(({ frozen }) => countRecords(join(frozen, "ledger")));
  must(first === second || first === second + 1, `not one instant: ${first} and ${second} records`);
  must(first < inLive[0], "the writing program did not continue after take");
  screen.success(
    `records in the images: ${first} and ${second}, so one instant; in the volumes ${inLive[0]} by now`,
  );
  return { id, writtenBefore, stallUs: taken.stall_us, longestMs: ledger.longestMs };
}

/** @returns {Promise<{files: number, bytes: number}>} verified files */
async function verifyImages(stage, when) {
  const { screen, cleanup, volumes } = stage;
  for (const volume of volumes) {
    const found = await screen.during(`reading ${volume.frozen}`, () =>
      checkChecksums(volume.frozenFiles, volume.listPath, volume.listed, cleanup.signal),
    );
    cleanup.checkInterrupt();
    const { same, changed, missing, added } = found;
    must(
      same === volume.listed && changed + missing + added === 0,
      `image of ${volume.name} ${when}: ${same} of ${volume.listed} files are right, ` +
        `${changed} changed, ${missing} missing, ${added} too many`,
    );
    screen.success(`image of ${volume.name} ${when}: all ${same} files are those of the instant`);
  }
  return { files: total(volumes, "listed"), bytes: total(volumes, "bytes") };
}

async function changeVolumes(stage) {
  const { screen, product, volumes } = stage;
  screen.step(
    "Every other file is overwritten, deleted, extended or cut, while the images are read",
  );
  const changes = screen
    .during("changing files", () =>
      Promise.all(volumes.map((volume) => changeFiles(volume.liveFiles, volume.names))),
    )
    .then(() => product.system(["sync"]));
  // Neither may continue after the other has failed and the clean-up has begun.
  const outcomes = await Promise.allSettled([verifyImages(stage, "meanwhile"), changes]);
  const failed = outcomes.find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
  return outcomes[0].value;
}

async function showLiveVolumes(stage) {
  const { screen, cleanup, product, volumes } = stage;
  screen.step("The volumes have moved on");
  for (const volume of volumes) {
    const found = await screen.during(`reading ${volume.live}`, () =>
      checkChecksums(volume.liveFiles, volume.listPath, volume.listed, cleanup.signal),
    );
    const { same, changed, missing, added } = found;
    must(changed > 0 && missing > 0 && added > 0, `${volume.name} has not changed`);
    screen.success(
      `${volume.name}: ${same} files as before, ${changed} changed, ${missing} gone, ${added} new`,
    );
  }
  await product.ctl(["status"]);
  const { snapshots } = await product.client.status();
  const lost = snapshots[0].devices.reduce((sum, { lost_bytes }) => sum + lost_bytes, 0);
  must(lost === 0, `the snapshot lost ${lost} bytes`);
  const copied = snapshots[0].devices.reduce((sum, { copied_bytes }) => sum + copied_bytes, 0);
  return { copied, writtenBy: await bytesWritten(product) };
}

async function verifyAgainAndDestroy(stage, id) {
  const { screen, product, volumes } = stage;
  screen.step("The images again, read from their devices anew; then the snapshot is destroyed");
  for (const volume of volumes) {
    screen.command((await volume.unmount(volume.frozen)).join(" "));
    screen.command((await volume.mount(volume.image, volume.frozen, ["-o", "ro"])).join(" "));
  }
  const verified = await verifyImages(stage, "after the changes");
  for (const volume of volumes) {
    screen.command((await volume.unmount(volume.frozen)).join(" "));
  }
  await product.ctl(["snapshot_destroy", "--id", id]);
  for (const { image } of volumes) must(!existsSync(image), `${image} is still there`);
  screen.success("both images are gone");
  return verified;
}

/** Restores the backup and compares it with the volume, which has not been written to since. */
async function checkBackup(stage, backup) {
  const { screen, cleanup, product, volumes } = stage;
  const [volume] = volumes;
  const device = ["--device", volume.device];
  await product.ctl(["diff", ...device, "--since", "1", "--map"], { linesMax: DIFF_LINES_SHOWN });
  const listPath = join(stage.folder, "backup.sha256");
  const listed = await listChecksums(volume.liveFiles, listPath, cleanup.signal);
  const words = await volume.mount(backup, volume.frozen, ["-o", "ro,loop"]);
  screen.command(words.join(" "));
  const found = await screen.during("reading the backup", () =>
    checkChecksums(volume.frozenFiles, listPath, listed, cleanup.signal),
  );
  must(found.same === listed && found.added === 0, "the backup differs from the volume");
  const bytes = folderBytes(volume.frozenFiles);
  await volume.unmount(volume.frozen);
  screen.success(`all ${listed} files of the volume are in the backup`);
  return { files: listed, bytes };
}

async function end(stage) {
  const { screen, product, volumes } = stage;
  screen.step("The end: unmount, detach, stop the daemon");
  for (const volume of volumes) {
    screen.command((await volume.unmount(volume.live)).join(" "));
    await product.ctl(["detach", "--device", volume.device]);
  }
  await product.stop();
  const left = volumes.flatMap((volume) => volume.remainingDevices());
  must(left.length === 0, `left behind: ${left.join(", ")}`);
  screen.success("no device, mount or process is left");
}

/** @param {import("./lib/screen.mjs").Screen} screen */
export async function play(screen, cleanup) {
  const folder = makeFolder(cleanup, "/var/tmp/demo-");
  const runFolder = makeFolder(cleanup, "/run/blksnap-demo-");
  const product = new Product({ screen, cleanup, folder: runFolder });
  const stage = { screen, cleanup, folder, product, volumes: [] };
  screen.note(`Linux ${release()}, Node ${process.version}; everything is in ${folder}`);

  stage.volumes = await makeVolumes(stage);
  await attach(stage);
  await fillVolumes(stage);
  const [{ device }] = stage.volumes;
  const full = await backUp(
    stage,
    device,
    "A first backup of one volume, from a snapshot of its own",
  );
  const { id, writtenBefore, stallUs, longestMs } = await takeWhileWriting(stage);
  const checks = [await changeVolumes(stage)];
  const { copied, writtenBy } = await showLiveVolumes(stage);
  checks.push(await verifyAgainAndDestroy(stage, id));
  const next = await backUp(
    stage,
    device,
    "The next backup copies only what changed since the first",
  );
  checks.push(await checkBackup(stage, next.backup));
  await end(stage);

  const written = writtenBy - writtenBefore;
  screen.summary("All is as it should be", [
    ["files verified", `${total(checks, "files")}, ${mebibytes(total(checks, "bytes"))}, 0 wrong`],
    ["", "twice in each image, once in the backup"],
    ["writers held up", `${(stallUs / 1000).toFixed(1)} ms at take`],
    ["", `longest record of the writing program: ${longestMs.toFixed(0)} ms`],
    ["written after take", mebibytes(written)],
    ["old data copied", `${mebibytes(copied)}, ${((100 * copied) / written).toFixed(0)} % of that`],
    ["first backup", full.summary],
    ["second backup", next.summary],
  ]);
}
