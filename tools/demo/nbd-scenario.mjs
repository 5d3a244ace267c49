/** The demo with NBD exports as fronts: no ublk, no mounts, no root. Step by step. */
import { createHash, randomBytes } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { NbdClient } from "@blksnap/nbd";
import { chooseFiles } from "./lib/files.mjs";
import { Product } from "./lib/product.mjs";
import { REPOSITORY } from "./lib/program.mjs";
import { backUp, CONTENTS, makeFolder, mebibytes, must } from "./lib/steps.mjs";

const DISK_BYTES = 128 * 2 ** 20;
const FILES_PER_DISK = 300;
const BLOCK_BYTES = 4096;
/** The end of each disk is the writing program's. */
const RECORDS_AT = DISK_BYTES - 16 * 2 ** 20;
const RECORDS_BEFORE_TAKE = 20;
const PAUSE_MS = 10;

function hashOf(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Runs `use` with a connection to an export. */
async function connected(uri, use) {
  const client = await NbdClient.connect(uri);
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

function makeDisks({ screen, folder }) {
  screen.step("Two disks: image files of 128 MiB each");
  return CONTENTS.map(({ name, matches }) => {
    const device = join(folder, `${name}.img`);
    screen.command(`truncate -s ${DISK_BYTES} ${device}`);
    const fd = openSync(device, "wx");
    ftruncateSync(fd, DISK_BYTES);
    closeSync(fd);
    return { name, matches, device, files: [] };
  });
}

async function attach({ screen, product, disks }) {
  screen.step("blksnapd puts a front before each: an NBD export, which clients use as their disk");
  await product.start(["--frontend", "nbd"]);
  for (const disk of disks) {
    const output = await product.ctl(["attach", "--device", disk.device]);
    disk.front = /^front=(.+)$/m.exec(output)[1];
  }
}

/** Real files, one after the other, each from a block boundary on. */
async function fill({ screen, cleanup, disks }) {
  screen.step("Real files, written through the fronts, and their checksums");
  const modules = join(REPOSITORY, "node_modules");
  for (const disk of disks) {
    const sources = chooseFiles(modules, disk.matches, FILES_PER_DISK);
    await connected(disk.front, async (client) => {
      let offsetBytes = 0;
      for (const { path } of sources) {
        cleanup.checkInterrupt();
        const content = readFileSync(path);
        const lengthBytes = Math.ceil(content.length / BLOCK_BYTES) * BLOCK_BYTES;
        if (lengthBytes === 0 || offsetBytes + lengthBytes > RECORDS_AT) continue;
        const blocks = Buffer.alloc(lengthBytes);
        content.copy(blocks);
        await client.write(offsetBytes, blocks);
        disk.files.push({ offsetBytes, lengthBytes, hash: hashOf(blocks) });
        offsetBytes += lengthBytes;
      }
      await client.flush();
      disk.bytes = offsetBytes;
    });
    must(disk.files.length > 10, `too few files for ${disk.name}: run npm install first`);
    screen.success(`${disk.name}: ${disk.files.length} files, ${mebibytes(disk.bytes)}`);
  }
}

/** Writes record n durably to the first disk, then to the second, and so on. */
class Records {
  count = 0;
  longestMs = 0;
  #isStopping = false;
  #running;
  #failure;

  start(disks) {
    this.#running = this.#write(disks).catch((error) => {
      this.#failure = error;
    });
  }

  async #write(disks) {
    const clients = [];
    try {
      for (const { front } of disks) clients.push(await NbdClient.connect(front));
      while (!this.#isStopping) {
        const record = Buffer.alloc(BLOCK_BYTES, `record ${this.count + 1}\n`);
        for (const client of clients) {
          const startMs = performance.now();
          await client.write(RECORDS_AT + this.count * BLOCK_BYTES, record, { fua: true });
          this.longestMs = Math.max(this.longestMs, performance.now() - startMs);
        }
        this.count++;
        await sleep(PAUSE_MS);
      }
    } finally {
      for (const client of clients) await client.close();
    }
  }

  async reach(count) {
    while (this.count < count && this.#failure === undefined) await sleep(PAUSE_MS);
    if (this.#failure) throw this.#failure;
  }

  async stop() {
    this.#isStopping = true;
    await this.#running;
    if (this.#failure) throw this.#failure;
  }
}

function countRecords(uri) {
  return connected(uri, async (client) => {
    const all = Buffer.from(await client.read(RECORDS_AT, DISK_BYTES - RECORDS_AT));
    let count = 0;
    while (all.toString("latin1", count * BLOCK_BYTES).startsWith(`record ${count + 1}\n`)) count++;
    return count;
  });
}

async function takeWhileWriting({ screen, cleanup, product, disks, folder }) {
  screen.step("One snapshot of both disks at one instant, while a program writes to both");
  const records = new Records();
  records.start(disks);
  const stopRecords = cleanup.add("the writing program", () => records.stop());
  const devices = disks.flatMap(({ device }) => ["--device", device]);
  const words = ["snapshot_create", ...devices, "--file", folder, "--limit", "256M"];
  const id = (await product.ctl(words)).trim();
  await records.reach(RECORDS_BEFORE_TAKE);
  const taken = JSON.parse(await product.ctl(["snapshot_take", "--id", id, "--json"]));
  await records.reach(records.count + RECORDS_BEFORE_TAKE);
  await stopRecords();
  const counts = [];
  for (const disk of disks) {
    disk.image = taken.images.find(({ device }) => device === disk.device).image;
    counts.push(await countRecords(disk.image));
  }
  const [first, second] = counts;
  must(first === second || first === second + 1, `not one instant: ${first} and ${second} records`);
  must(first < records.count, "the writing program did not continue after take");
  const now = `in the fronts ${records.count} by now`;
  screen.success(`records in the images: ${first} and ${second}, so one instant; ${now}`);
  return { id, stallUs: taken.stall_us, longestMs: records.longestMs };
}

/** Number of unchanged files. */
function same({ files }, uri) {
  return connected(uri, async (client) => {
    let count = 0;
    for (const { offsetBytes, lengthBytes, hash } of files) {
      if (hashOf(await client.read(offsetBytes, lengthBytes)) === hash) count++;
    }
    return count;
  });
}

async function verifyImages({ screen, cleanup, disks }, when) {
  for (const disk of disks) {
    const found = await screen.during(`reading ${disk.image}`, () => same(disk, disk.image));
    cleanup.checkInterrupt();
    const all = disk.files.length;
    must(found === all, `image of ${disk.name} ${when}: ${found} of ${all} files are right`);
    screen.success(`image of ${disk.name} ${when}: all ${found} files are those of the instant`);
  }
}

/** Every other file: overwritten, discarded or zeroed. */
function change({ front, files }) {
  return connected(front, async (client) => {
    for (let index = 0; index < files.length; index += 2) {
      const { offsetBytes, lengthBytes } = files[index];
      if (index % 3 === 0) await client.write(offsetBytes, randomBytes(lengthBytes));
      else if (index % 3 === 1) await client.writeZeroes(offsetBytes, lengthBytes);
      else {
        await client.trim(offsetBytes, lengthBytes);
        await client.write(offsetBytes, randomBytes(BLOCK_BYTES));
      }
    }
    await client.flush();
  });
}

async function changeWhileReading(stage) {
  const { screen, product, disks } = stage;
  screen.step("Every other file is overwritten, zeroed or discarded, while the images are read");
  const changes = screen.during("changing files", () => Promise.all(disks.map(change)));
  const outcomes = await Promise.allSettled([verifyImages(stage, "meanwhile"), changes]);
  const failed = outcomes.find(({ status }) => status === "rejected");
  if (failed) throw failed.reason;
  await verifyImages(stage, "after the changes");
  for (const disk of disks) {
    const left = await same(disk, disk.front);
    must(left <= Math.ceil(disk.files.length / 2), `${disk.name} has not changed`);
    screen.success(`${disk.name} itself: ${left} files as before, the others changed`);
  }
  await product.ctl(["status"]);
  const { snapshots } = await product.client.status();
  const lost = snapshots[0].devices.reduce((sum, { lost_bytes }) => sum + lost_bytes, 0);
  must(lost === 0, `the snapshot lost ${lost} bytes`);
}

async function destroy({ screen, product, disks }, id) {
  screen.step("The snapshot is destroyed");
  await product.ctl(["snapshot_destroy", "--id", id]);
  for (const { image } of disks) {
    const isThere = await connected(image, () => true).catch(() => false);
    must(!isThere, `${image} is still there`);
  }
  screen.success("both images are gone");
}

async function checkBackup({ screen, disks }, backup) {
  const [{ front, name }] = disks;
  const now = Buffer.alloc(DISK_BYTES);
  await connected(front, async (client) => {
    const pieceBytes = client.export.maxPayloadBytes;
    for (let at = 0; at < DISK_BYTES; at += pieceBytes) {
      await client.readInto(at, now.subarray(at, at + pieceBytes));
    }
  });
  must(readFileSync(backup).equals(now), "the backup differs from the disk");
  screen.success(`the backup of ${name} is the disk, byte for byte`);
}

async function end({ screen, product, disks }) {
  screen.step("The end: detach, stop the daemon");
  for (const { device } of disks) await product.ctl(["detach", "--device", device]);
  await product.stop();
}

/** @param {import("./lib/screen.mjs").Screen} screen */
export async function playOverNbd(screen, cleanup) {
  const folder = makeFolder(cleanup, "/var/tmp/demo-");
  const runFolder = makeFolder(cleanup, join(tmpdir(), "blksnap-demo-"));
  const product = new Product({ screen, cleanup, folder: runFolder });
  const stage = { screen, cleanup, folder, product, disks: [] };
  screen.note(`Linux ${release()}, Node ${process.version}; everything is in ${folder}`);
  screen.note("Fronts and images are NBD exports here: no device, no mount, no root");

  stage.disks = makeDisks(stage);
  await attach(stage);
  await fill(stage);
  const [{ device }] = stage.disks;
  const full = await backUp(
    stage,
    device,
    "A first backup of one disk, from a snapshot of its own",
  );
  const { id, stallUs, longestMs } = await takeWhileWriting(stage);
  await changeWhileReading(stage);
  await destroy(stage, id);
  const next = await backUp(
    stage,
    device,
    "The next backup reads only what changed since the first",
  );
  await checkBackup(stage, next.backup);
  await end(stage);

  const files = stage.disks.reduce((sum, disk) => sum + disk.files.length, 0);
  screen.summary("All is as it should be", [
    ["files verified", `${2 * files} in the images, 0 wrong`],
    ["writers held up", `${(stallUs / 1000).toFixed(1)} ms at take`],
    ["", `longest record of the writing program: ${longestMs.toFixed(0)} ms`],
    ["first backup", full.summary],
    ["second backup", next.summary],
  ]);
}
