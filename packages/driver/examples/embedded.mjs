/**
 * The driver inside of another program: tracks an image file, takes a snapshot and reads from the
 * image what the front does not have any more. Needs root and the kernel module ublk_drv.
 */
import {
  closeSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Driver } from "@blksnap/driver";
import { pino } from "pino";

const dir = mkdtempSync(join(tmpdir(), "blksnap-example-"));
const original = join(dir, "disk.img");
writeFileSync(original, "");
truncateSync(original, 16 << 20);

function write(device, text) {
  const fd = openSync(device, "rs+");
  writeSync(fd, text, 0);
  closeSync(fd);
}

function read(device) {
  const fd = openSync(device, "r");
  const bytes = Buffer.alloc(16);
  readSync(fd, bytes, 0, bytes.length, 0);
  closeSync(fd);
  return bytes.toString().replaceAll("\0", "");
}

const driver = await Driver.start({
  logger: pino({ level: "error" }),
  stateDirectory: join(dir, "state"),
});
const { front } = await driver.attach(original);
write(front, "before the take ");
const { id } = await driver.snapshotCreate({
  devices: [original],
  stores: ["memory:"],
  limitBytes: 16 << 20,
});
const { images, stall_us } = await driver.snapshotTake(id);
write(front, "after the take  ");
console.log(`front: ${read(front)}`);
console.log(`image: ${read(images[0].image)}`);
console.error(`writers waited for ${stall_us} us`);
await driver.stop();
rmSync(dir, { recursive: true });
