import { assertNoConflict } from "@blksnap/diff-storage";
import {
  type DeviceNumber,
  deviceKey,
  type PathTarget,
  type TopologyProbe,
  underlyingDevices,
  underlyingDevicesOfPath,
} from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FakeTree, failsWith, stackUnknown, withDirectory } from "./support.js";

const dev = (key: string): DeviceNumber => {
  const [major, minor] = key.split(":").map(Number);
  return { major, minor };
};

/** A machine with most ways to put devices together. */
function machine(root: string): TopologyProbe {
  const tree = new FakeTree(root)
    .device("8:0", "pci/block/sda")
    .device("8:1", "pci/block/sda/sda1", { partition: "1" })
    .device("8:2", "pci/block/sda/sda2", { partition: "2" })
    .device("8:16", "pci/block/sdb")
    .device("8:32", "pci/block/sdc")
    .device("8:33", "pci/block/sdc/sdc1", { partition: "1" })
    .device("253:0", "virtual/block/dm-0", { "dm/name": "vg-root" })
    .device("253:1", "virtual/block/dm-1", { "dm/name": "vg-data" })
    .device("9:0", "virtual/block/md0")
    .device("7:0", "virtual/block/loop0", { "loop/backing_file": "/var/images/a.img" })
    .device("7:1", "virtual/block/loop1", { "loop/backing_file": "/gone.img (deleted)" })
    .device("259:5", "virtual/block/ublkb5")
    .slave("virtual/block/dm-0", "pci/block/sda/sda2")
    .slave("virtual/block/dm-1", "pci/block/sda/sda2")
    .slave("virtual/block/md0", "pci/block/sdb")
    .slave("virtual/block/md0", "pci/block/sdc/sdc1")
    .mount("8:1", "/", "ext4", "/dev/sda1")
    .mount("253:0", "/var", "xfs", "/dev/mapper/vg-root")
    .mount("9:0", "/srv", "ext4", "/dev/md0")
    .mount("0:50", "/bt", "btrfs", "/dev/sdb", "rw,space_cache")
    .mount("0:51", "/dev/shm", "tmpfs", "tmpfs")
    .mount("0:52", "/merged", "overlay", "overlay", "rw,lowerdir=/l,upperdir=/srv/up")
    .mount("0:53", "/tank", "zfs", "tank")
    .mount("259:5", "/front", "ext4", "/dev/ublkb5")
    .mount("8:32", "/whole\\040disk", "ext4", "/dev/sdc");
  tree.file("fs/btrfs/1234/devices/sdb/dev", "8:16").file("fs/btrfs/1234/devices/sdc1/dev", "8:33");
  const { sysfsRoot, mountinfoPath } = tree;
  return { sysfsRoot, mountinfoPath, lookUp, layers };
}

const MOUNTS: readonly (readonly [string, string])[] = [
  ["/var", "253:0"],
  ["/srv", "9:0"],
  ["/bt", "0:77"],
  ["/dev/shm", "0:51"],
  ["/merged", "0:52"],
  ["/tank", "0:53"],
  ["/front", "259:5"],
  ["/whole disk", "8:32"],
  ["/", "8:1"],
];
/** Other names of the same file. */
const HARD_LINKS: Readonly<Record<string, string>> = { "/var/x/again.img": "/var/images/a.img" };
const NODES: Readonly<Record<string, string>> = {
  "/dev/sda": "8:0",
  "/dev/sda1": "8:1",
  "/dev/sdb": "8:16",
  "/dev/sdc": "8:32",
  "/dev/loop0": "7:0",
  "/dev/loop1": "7:1",
  "/dev/loop2": "7:2",
  "/dev/nbd0": "43:0",
  "/dev/mapper/multipath": "253:2",
  "/dev/mapper/vg-data": "253:1",
};

async function lookUp(path: string): Promise<PathTarget> {
  if (path.endsWith("(deleted)")) throw new Error(`ENOENT: ${path}`);
  const [, key] = MOUNTS.find(([point]) => path === point || path.startsWith(`${point}/`)) ?? [
    "/",
    "8:1",
  ];
  const node = NODES[path];
  return {
    realPath: path,
    device: dev(node === undefined ? key : "0:6"),
    blockDevice: node === undefined ? undefined : dev(node),
    identity: node === undefined ? `file:${key}:${HARD_LINKS[path] ?? path}` : `block:${node}`,
  };
}

const layers = (device: DeviceNumber): DeviceNumber[] | undefined =>
  deviceKey(device) === "259:5" ? [dev("8:1")] : undefined;

const keysOf = (found: readonly { device: DeviceNumber }[]): string[] =>
  found.map(({ device }) => deviceKey(device));

test("partitions, device-mapper, md and loop devices are followed down", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    assert.equal(keysOf(await underlyingDevices(dev("8:1"), probe)), ["8:1", "8:0"]);
    assert.equal(keysOf(await underlyingDevices(dev("253:0"), probe)), ["253:0", "8:2", "8:0"]);
    const md = await underlyingDevices(dev("9:0"), probe);
    assert.equal(keysOf(md).toSorted(), ["8:16", "8:32", "8:33", "9:0"]);
    const loop = await underlyingDevices(dev("7:0"), probe);
    assert.equal(keysOf(loop), ["7:0", "253:0", "8:2", "8:0"]);
    assert.equal(loop.at(-1)!.chain, [
      "/dev/loop0",
      "/var/images/a.img",
      "xfs on /dev/mapper/vg-root",
      "/dev/sda2",
      "/dev/sda",
    ]);
  }));

test("files are followed through their file systems", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    const of = async (path: string): Promise<string[]> =>
      keysOf(await underlyingDevicesOfPath(path, probe)).toSorted();
    assert.equal(await of("/home/x"), ["8:0", "8:1"]);
    assert.equal(await of("/dev/shm"), []);
    assert.equal(await of("/bt/subvolume/x"), ["8:16", "8:32", "8:33"]);
    assert.equal(await of("/merged/x"), ["8:16", "8:32", "8:33", "9:0"]);
    assert.equal(await of("/whole disk"), ["8:32"]);
    assert.equal(await of("/front/x"), ["259:5", "8:0", "8:1"]);
  }));

test("what cannot be resolved is refused, not guessed", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    await stackUnknown(() => underlyingDevicesOfPath("/tank/x", probe));
    await stackUnknown(() => underlyingDevices(dev("7:1"), probe));
  }));

test("a store on a member is refused, and the message names the way", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    const refused = async (store: string, member: string): Promise<string> =>
      (await failsWith("STORE_ON_MEMBER", () => assertNoConflict(store, [dev(member)], probe)))
        .message;
    const way = await refused("/home/x", "8:0");
    assert.match(way, "/home/x → ext4 on /dev/sda1 → /dev/sda");
    await refused("/home/x", "8:1");
    await refused("/var/x", "8:2");
    await refused("/bt/x", "8:33");
    await refused("/dev/loop0", "253:0");
    await refused("/front/x", "8:1");
    await refused("/dev/sda1", "8:1");
  }));

test("a store that is not there is said to be missing", async () => {
  await failsWith("STORE_NOT_FOUND", () => assertNoConflict("/no/such/store", [dev("8:1")]));
});

test("a device that a member is made of, or whole disk and partition, are refused", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    const refused = (store: string, member: string): Promise<unknown> =>
      failsWith("STORE_ON_MEMBER", () => assertNoConflict(store, [dev(member)], probe));
    await refused("/dev/sdb", "9:0");
    await refused("/dev/sda", "8:1");
    await refused("/dev/sda", "253:1");
    await refused("/whole disk/x", "8:33");
  }));

test("neighbours on one disk don't conflict", () =>
  withDirectory(async (root) => {
    const probe = machine(root);
    await assertNoConflict("/home/x", [dev("8:2"), dev("253:0"), dev("9:0")], probe);
    await assertNoConflict("/dev/mapper/vg-data", [dev("253:0")], probe);
    await assertNoConflict("/dev/shm", [dev("8:0"), dev("8:16")], probe);
    await assertNoConflict("memory", [dev("8:0")], probe);
    await assertNoConflict("/home/x", [], probe);
    // A loop device over a file beside the store writes elsewhere.
    await assertNoConflict("/var/x", [dev("7:0")], probe);
  }));

test("the root file system of this machine can be examined", async () => {
  const found = await underlyingDevicesOfPath("/");
  for (const { chain } of found) assert.is(chain[0], "/");
});

test.run();
