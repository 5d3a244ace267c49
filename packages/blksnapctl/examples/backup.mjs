/**
 * The steps of a backup script with blksnapctl: snapshot, read the image, list the changes, clean up.
 * Needs a running blksnapd:  node examples/backup.mjs /dev/loop0
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const program = fileURLToPath(new URL("../bin/blksnapctl.mjs", import.meta.url));
const blksnapctl = (...args) =>
  JSON.parse(execFileSync(process.execPath, [program, ...args, "--json"], { encoding: "utf8" }));

const device = process.argv[2];
if (device === undefined) {
  console.error("usage: node backup.mjs DEVICE");
  process.exit(2);
}
const { id } = blksnapctl(
  ...["snapshot_create", "--device", device, "--file", "/var/tmp", "--limit", "256M"],
);
try {
  blksnapctl("snapshot_take", "--id", id);
  const { image } = blksnapctl("snapshot_info", "--device", device);
  console.log(`image: ${image}`);
  const { changes_number, generation_id } = blksnapctl("cbtinfo", "--device", device);
  const { changed_bytes } = blksnapctl(
    ...["diff", "--device", device, "--since", changes_number - 1, "--generation", generation_id],
  );
  console.log(`${changed_bytes} bytes changed since the snapshot before`);
} finally {
  blksnapctl("snapshot_destroy", "--id", id);
}
