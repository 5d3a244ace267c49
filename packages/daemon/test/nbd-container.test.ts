/**
 * The programs as users run them in a container: with a snapshot, diff, exports and a restore, judged by programs of
 * others; and the demo, which has neither ublk nor a VM there.
 */
import { join } from "node:path";
import { lacksPrograms, testUnless } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { inContainer } from "./container.js";

const REPOSITORY = join(import.meta.dirname, "../../..");
const BIN = join(REPOSITORY, "node_modules/.bin");
const test = suite("in a container");
const contained = testUnless(test, lacksPrograms("unshare", "nbdcopy", "nbdinfo", "qemu-io"));

const USE = `
cd /home
PATH=${BIN}:$PATH
blksnapd --frontend nbd --reactors 1 --log-level warn & daemon=$!
until blksnapctl status > /dev/null; do sleep 0.1; done
truncate -s 64M disk
front=$(blksnapctl attach -d /home/disk | sed -n 's/^front=//p')
qemu-io -f raw -c 'write -P 1 0 8M' "$front"
blksnapctl export -d /home/disk --to backups -f /home -l 64M | grep '^full: '
nbdcopy "$front" before
id=$(blksnapctl snapshot_create -d /home/disk -f /home -l 64M)
blksnapctl snapshot_take --id "$id"
qemu-io -f raw -c 'write -P 2 1M 1M' -c 'write -z 4M 1M' -c 'discard 6M 1M' "$front"
image=$(blksnapctl snapshot_info -d /home/disk --field nbd_uri)
nbdcopy "$image" image
cmp before image
blksnapctl snapshot_destroy --id "$id"
id=$(blksnapctl snapshot_create -d /home/disk -f /home -l 64M)
blksnapctl snapshot_take --id "$id"
image=$(blksnapctl snapshot_info -d /home/disk --field nbd_uri)
nbdinfo --map=qemu:dirty-bitmap:since-2 --totals "$image"
blksnapctl diff -d /home/disk --since 2 --format json > diff.json
blksnapctl snapshot_destroy --id "$id"
node -e 'console.log("changed", JSON.parse(fs.readFileSync("diff.json")).ranges.map(
  ({ offset_bytes, length_bytes }) => [offset_bytes, length_bytes].join("+")).join(" "))'
blksnapctl export -d /home/disk --to backups --auto -f /home -l 64M | grep '^incremental: '
blksnapctl restore --from backups --to restored
nbdcopy "$front" now
cmp now restored
blksnapctl detach -d /home/disk
kill $daemon
wait $daemon
echo complete`;

contained(
  "snapshot, diff, export and restore work without ublk, by a user who is not root",
  async () => {
    const { status, output } = await inContainer(USE, "/");
    assert.is(status, 0, output);
    assert.match(output, /\ncomplete\n$/);
    assert.match(output, "changed 1048576+1048576 4194304+1048576 6291456+1048576");
    // The same for libnbd: three of 64 MiB.
    assert.match(output, / 3145728 +4\.7% +1 +dirty/);
  },
);

contained(
  "the demo uses NBD exports where neither ublk nor a VM can be had, and says so",
  async () => {
    const { status, output } = await inContainer("node tools/demo/demo.mjs", REPOSITORY);
    assert.is(status, 0, output);
    assert.match(
      output,
      "The demo uses NBD exports in place of block devices, as there is no ublk here, and no VM: ",
    );
    assert.match(output, "All is as it should be");
    assert.not.match(output, "/dev/ublkb");
  },
);

test.run();
