/**
 * A RAM disk of 64 MiB. Needs root and the kernel module ublk_drv. Ends with Ctrl-C, or after the
 * command that is given as arguments: node ram-disk.mjs sh -c 'mkfs.ext4 -q $DEVICE'
 */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { memoryTarget, UblkDevice } from "@blksnap/ublk";

const device = await UblkDevice.start({ target: memoryTarget({ capacityBytes: 64 << 20 }) });
console.log(`${device.path} is ready`);

const [command, ...args] = process.argv.slice(2);
if (command === undefined) {
  await once(process, "SIGINT");
} else {
  const env = { ...process.env, DEVICE: device.path };
  process.exitCode = spawnSync(command, args, { stdio: "inherit", env }).status ?? 1;
}
await device.stop();
