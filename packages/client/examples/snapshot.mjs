/**
 * Takes a snapshot of the devices named on the command line, shows the images, and destroys it.
 * Needs a running blksnapd:  node examples/snapshot.mjs /dev/loop0
 */
import { BlksnapClient, BlksnapClientError } from "@blksnap/client";

const client = new BlksnapClient();
const devices = process.argv.slice(2);
if (devices.length === 0) {
  console.error("usage: node snapshot.mjs DEVICE...");
  process.exit(2);
}

try {
  const { id } = await client.snapshotCreate({
    devices,
    stores: ["/var/tmp"],
    limitBytes: 256 * 1024 ** 2,
  });
  try {
    const { images, stall_us } = await client.snapshotTake(id);
    for (const { device, image } of images) console.log(`image of ${device}: ${image}`);
    console.log(`writers waited for ${stall_us} us`);
  } finally {
    await client.snapshotDestroy(id);
  }
} catch (error) {
  if (!(error instanceof BlksnapClientError)) throw error;
  console.error(`${error.code}: ${error.message}. ${error.hint}.`);
  process.exitCode = 1;
}
