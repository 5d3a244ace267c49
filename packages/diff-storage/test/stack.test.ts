import { assertNoConflict, assertNotInUse, otherUses } from "@blksnap/diff-storage";
import { deviceKey, type KnownFile, overlapOf, stackOf } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { dev, on } from "./machine.js";
import { stackUnknown } from "./support.js";

test(
  "the file of a loop device, by any of its names and however deep",
  on(async (machine) => {
    machine.file("/a.img", 5).file("/hard-link", 5).file("/b.img", 6).file("/in/c.img", 7, "7:0");
    machine.loop(0, "/a.img").tree.mount("7:0", "/in", "ext4", "/dev/loop0");
    machine.loop(1, "/in/c.img");
    assert.match(
      await machine.refused("/a.img", "/dev/loop0"),
      "the store /a.img is what /dev/loop0 lies on, a device that is tracked (/dev/loop0 → /a.img)",
    );
    await machine.refused("/hard-link", "/dev/loop0");
    await machine.refused("/hard-link", "/dev/loop1");
    await machine.refused("/in/c.img", "/dev/loop1");
    await machine.refused("/in/c.img", "/a.img");
    await machine.refused("/dev/loop0", "/hard-link");
    await machine.accepted("/b.img", "/dev/loop0");
    await machine.accepted("/b.img", "/dev/loop1");
  }),
);

test(
  "a loop device's file whose name is gone is known by what the kernel says",
  on(async (machine) => {
    machine.file("/a.img", 5).loop(0, "/before.img (deleted)");
    await stackUnknown(() =>
      assertNoConflict("/a.img", [machine.deviceOrFile("/dev/loop0")], machine.probe),
    );
    const backing = { device: dev("8:1"), blockDevice: undefined, identity: "file:8:1:5" };
    machine.probe = { ...machine.probe, loopBacking: async () => backing };
    assert.match(await machine.refused("/a.img", "/dev/loop0"), /loop0 → \/before.img \(deleted\)/);
    const stack = await stackOf(dev("7:0"), machine.probe);
    assert.equal([...stack.keys()], ["block:7:0", "file:8:1:5", "block:8:1", "block:8:0"]);
    const onDisk = { ...backing, blockDevice: dev("8:0"), identity: "block:8:0" };
    machine.probe = { ...machine.probe, loopBacking: async () => onDisk };
    await machine.refused("/dev/sda", "/dev/loop0");
  }),
);

test(
  "two loop devices over one file, and over two parts of it",
  on(async (machine) => {
    machine.file("/a.img", 5).loop(0, "/a.img").loop(1, "/a.img");
    machine.loop(2, "/a.img", { "loop/offset": "4096" });
    machine.loop(3, "/a.img", { "loop/sizelimit": "4096" });
    assert.match(
      await machine.refused("/dev/loop1", "/dev/loop0"),
      "the store /dev/loop1 and /dev/loop0 lie on the same bytes of /a.img, a device that is tracked " +
        "(/dev/loop1 → /a.img → /a.img → /dev/loop0)",
    );
    await machine.refused("/dev/loop2", "/dev/loop0");
    const [two, three] = [dev("7:2"), dev("7:3")];
    const { probe } = machine;
    assert.is(overlapOf(await stackOf(two, probe), await stackOf(three, probe)), undefined);
  }),
);

test(
  "the journal of an ext4 on another device",
  on(async (machine) => {
    machine.disk("8:16", "sdb").disk("8:32", "sdc").disk("259:0", "ublkb0");
    machine.tree.mount("8:16", "/data", "ext4", "/dev/sdb");
    machine.file("/data/store", 9, "8:16");
    machine.tree.file("fs/ext4/sdb/journal_task", "77");
    machine.probe = {
      ...machine.probe,
      layers: (device) => (deviceKey(device) === "259:0" ? [dev("8:32")] : undefined),
    };
    machine.proc("77/comm", "jbd2/sdb-8");
    await machine.accepted("/data/store", "/dev/sdc");
    machine.proc("77/comm", "jbd2/ublkb0");
    assert.match(
      await machine.refused("/data/store", "/dev/sdc"),
      "lies on /dev/sdc, a device that is tracked " +
        "(/data/store → journal of /dev/sdb → /dev/ublkb0 → /dev/sdc)",
    );
    // A thread that this process cannot see: any journal may be its.
    machine.tree.file("fs/ext4/sdb/journal_task", "0");
    machine.proc("fs/jbd2/sda1-8/info", "").proc("fs/jbd2/sdc/info", "");
    await machine.refused("/data/store", "/dev/sdc");
    await machine.accepted("/data/store", "/dev/sda");
  }),
);

test(
  "log and realtime device of an XFS, all devices of a btrfs, the bitmap file of an md",
  on(async (machine) => {
    machine.disk("8:16", "sdb").disk("8:32", "sdc").disk("8:48", "sdd").disk("9:0", "md0");
    machine.tree.mount("8:16", "/x", "xfs", "/dev/sdb", "rw,logdev=/dev/sdc,rtdev=/dev/sdd");
    machine.file("/x/store", 9, "8:16");
    for (const member of ["/dev/sdb", "/dev/sdc", "/dev/sdd"]) {
      await machine.refused("/x/store", member);
    }
    machine.tree.mount("0:50", "/b", "btrfs", "/dev/sdc");
    machine.file("/b/store", 9, "0:77");
    await stackUnknown(() => machine.accepted("/b/store", "/dev/sda"));
    machine.tree.file("fs/btrfs/1/devices/sdc/dev", "8:32");
    machine.tree.file("fs/btrfs/1/devices/sdd/dev", "8:48");
    await machine.refused("/b/store", "/dev/sdd");
    await machine.accepted("/b/store", "/dev/sdb");
    machine.file("/x/bitmap", 10, "8:16").tree.slave("block/md0", "block/sda");
    machine.proc(
      "mdstat",
      "Personalities : [raid1]\nmd0 : active raid1 sda[0]\n      8 blocks\n" +
        "      bitmap: 0/1 pages [0KB], 65536KB chunk, file: /x/bitmap\n\nunused devices: <none>",
    );
    await machine.refused("/dev/md0", "/dev/sdc");
  }),
);

test(
  "volumes and partitions beside each other; what shows another device from end to end",
  on(async (machine) => {
    const partitions = { partition: "2", start: "2048", size: "2048" };
    machine.tree.device("8:2", "block/sda/sda2", partitions);
    for (const [minor, size, uuid] of [
      [0, "1024", "LVM-1"],
      [1, "1024", "LVM-2"],
      [2, "2048", "mpath-naa.5"],
      [3, "2048", "LVM-3"],
      [4, "2048", "LVM-4"],
      // As dmsetup makes them.
      [5, "2048", ""],
      [6, "2048", ""],
    ] as const) {
      machine.disk(`253:${minor}`, `dm-${minor}`, { "dm/uuid": uuid, size });
      machine.tree.slave(`block/dm-${minor}`, "block/sda/sda2");
    }
    machine.node("/dev/sda2", "8:2");
    await machine.accepted("/dev/dm-0", "/dev/dm-1");
    // Two volumes as large as the pool that they share.
    await machine.accepted("/dev/dm-3", "/dev/dm-4");
    await machine.refused("/dev/dm-0", "/dev/sda2");
    await machine.refused("/dev/sda2", "/dev/dm-0");
    await machine.refused("/dev/dm-2", "/dev/dm-0");
    await machine.refused("/dev/dm-5", "/dev/dm-6");
    await machine.refused("/dev/dm-5", "/dev/dm-0");
  }),
);

test(
  "two paths to one disk",
  on(async (machine) => {
    machine.disk("8:16", "sdb", { "device/wwid": "naa.5000c500a1b2c3d4" });
    machine.disk("8:32", "sdc", { "device/wwid": "naa.5000c500a1b2c3d4" });
    machine.disk("8:48", "sdd", { "device/wwid": "t10.ATA     QEMU HARDDISK   QM00001" });
    machine.disk("8:64", "sde", { "device/wwid": "t10.ATA     QEMU HARDDISK   QM00001" });
    assert.match(await machine.refused("/dev/sdb", "/dev/sdc"), /the disk naa\.5000c500a1b2c3d4/);
    // Names that are made up of models are not unique.
    await machine.accepted("/dev/sdd", "/dev/sde");
  }),
);

test(
  "files of nbd and ublk servers on this host",
  on(async (machine) => {
    machine.file("/disk.qcow2", 5).file("/log", 6).file("/other", 7);
    machine.disk("43:0", "nbd0", { pid: "50" }).process(50, "/disk.qcow2", "/log");
    machine.disk("259:3", "ublkb3").process(51, "/dev/ublkc3", "/other");
    assert.match(
      await machine.refused("/disk.qcow2", "/dev/nbd0"),
      "is what /dev/nbd0 lies on, a device that is tracked " +
        "(/dev/nbd0 → process 50 → /disk.qcow2)",
    );
    await machine.refused("/other", "/dev/ublkb3");
    await machine.accepted("/dev/ublkb3", "/dev/nbd0");
    assert.match(await machine.inUse("/other"), "/other is what /dev/ublkb3 shows");
    assert.match(await machine.inUse("/disk.qcow2"), "/dev/nbd0");
  }),
);

test(
  "what a loop device shows is not a store, whether anything is tracked or not",
  on(async (machine) => {
    machine.file("/a.img", 5).file("/hard-link", 5).file("/in/store", 9, "7:0").loop(0, "/a.img");
    machine.tree.mount("7:0", "/in", "ext4", "/dev/loop0");
    assert.match(await machine.inUse("/hard-link"), "is what /dev/loop0 shows");
    await machine.accepted("/in/store", "/dev/loop0").catch((error) => {
      assert.is(error.code, "STORE_ON_MEMBER");
    });
    await assertNotInUse("/in/store", machine.probe);
    await assertNotInUse("/dev/loop0", machine.probe);
    machine.disk("8:16", "sdb").loop(1, "/dev/sdb");
    assert.match(await machine.inUse("/dev/sdb"), "is what /dev/loop1 shows");
  }),
);

test(
  "swap is not a store, also by another of its names",
  on(async (machine) => {
    machine.file("/swap file", 5).file("/link", 5).file("/a", 6);
    const head = "Filename\t\t\tType\t\tSize\tUsed\tPriority";
    machine.proc("swaps", `${head}\n/swap\\040file                      file\t\t1\t0\t-2`);
    assert.match(await machine.inUse("/link"), "/link is used as swap");
    assert.equal(await otherUses(await stackOf("/a", machine.probe), machine.probe), []);
  }),
);

test(
  "a file in memory lies on no device",
  on(async (machine) => {
    const place: KnownFile = {
      identity: "file:1:1",
      device: dev("0:1"),
      path: "/memfd:a (deleted)",
    };
    assert.is((await stackOf(place, machine.probe)).size, 1);
  }),
);

test.run();
