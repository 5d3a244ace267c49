import { blockIdentity, stackOf } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { dev, type Machine, on } from "./machine.js";

/** As mkfs.f2fs leaves it: what stands behind a path's end is not cleared. */
function f2fsSuperblock(...paths: readonly string[]): Buffer {
  const superblock = Buffer.alloc(3072);
  superblock.writeUInt32LE(0xf2f52010, 0);
  for (const [i, path] of paths.entries()) {
    superblock.fill("/dev/junk", 2201 + 68 * i, 2201 + 68 * i + 64);
    superblock.write(`${path}\0`, 2201 + 68 * i);
  }
  return superblock;
}

function jfsSuperblock(flags: number, logDevice: number): Buffer {
  const superblock = Buffer.alloc(512);
  superblock.write("JFS1");
  superblock.writeUInt32LE(flags, 36);
  superblock.writeUInt32LE(logDevice, 64);
  return superblock;
}

/** Four disks, and a file on the first of them. */
function withFileOn(machine: Machine, fsType: string, options = "rw"): Machine {
  machine.disk("8:16", "sdb").disk("8:32", "sdc").disk("8:48", "sdd").disk("259:700", "nvme0n1");
  machine.tree.mount("8:16", "/x", fsType, "/dev/sdb", options);
  return machine.file("/x/store", 9, "8:16");
}

test(
  "all devices of an f2fs",
  on(async (machine) => {
    withFileOn(machine, "f2fs").starts("8:16", 1024, f2fsSuperblock("/dev/other-name"));
    await machine.accepted("/x/store", "/dev/sdc");
    machine.starts("8:16", 1024, f2fsSuperblock("/dev/b", "/dev/sdc", "/dev/sdd"));
    assert.match(
      await machine.refused("/x/store", "/dev/sdd"),
      "(/x/store → f2fs on /dev/sdb → /dev/sdd)",
    );
    await machine.refused("/x/store", "/dev/sdc");
    await machine.refused("/x/store", "/dev/sdb");
    await machine.accepted("/x/store", "/dev/nvme0n1");
    machine.starts("8:16", 1024, f2fsSuperblock("/dev/b", "/dev/gone"));
    assert.match(await machine.unknown("/x/store", "/dev/sda"), "ENOENT: /dev/gone");
    // A number that the file's mount here does not tell: it is mounted elsewhere.
    machine.starts("8:48", 1024, f2fsSuperblock("/dev/sdd", "/dev/sdc"));
    machine.tree.file("fs/f2fs/sdd/features", "");
    const place = { identity: "file:8:48:3", device: dev("8:48"), path: "/elsewhere" };
    const stack = await stackOf(place, machine.probe);
    assert.ok(stack.has(blockIdentity("8:32")));
  }),
);

test(
  "the journal of a jfs and of a reiserfs on another device",
  on(async (machine) => {
    // Minor 700 in two parts, as the kernel writes it.
    withFileOn(machine, "jfs");
    machine.starts("8:16", 0x8000, jfsSuperblock(0x10200100, (259 << 8) | 0xbc | (0x200 << 12)));
    await machine.refused("/x/store", "/dev/nvme0n1");
    await machine.accepted("/x/store", "/dev/sdc");
    machine.starts("8:16", 0x8000, jfsSuperblock(0x10200900, 0x810));
    await machine.accepted("/x/store", "/dev/sdc");
    machine.starts("8:16", 0x8000, jfsSuperblock(0x10200100, 0x999));
    assert.match(
      await machine.unknown("/x/store", "/dev/sdc"),
      "its journal's device 9:153 is gone",
    );

    const superblock = Buffer.alloc(512);
    superblock.writeUInt32LE((8 << 8) | 32, 16);
    superblock.write("ReIsEr2Fs", 52);
    machine.tree.mount("8:48", "/r", "reiserfs", "/dev/sdd");
    machine.file("/r/store", 9, "8:48").starts("8:48", 0x10000, superblock);
    await machine.refused("/r/store", "/dev/sdc");
    await machine.accepted("/r/store", "/dev/nvme0n1");
  }),
);

test(
  "a jfs without a journal, and superblocks that cannot be read",
  on(async (machine) => {
    withFileOn(machine, "jfs", "rw,nointegrity");
    await machine.accepted("/x/store", "/dev/sdc");
    machine.tree.mount("8:48", "/y", "jfs", "/dev/sdd");
    machine.file("/y/store", 9, "8:48");
    assert.match(
      await machine.unknown("/y/store", "/dev/sda"),
      "its superblock cannot be read: EIO: i/o error, read",
    );
    machine.starts("8:48", 0x8000, Buffer.alloc(512));
    assert.match(await machine.unknown("/y/store", "/dev/sda"), "it has no superblock of jfs");
    machine.starts("8:48", 0x8000, Buffer.alloc(100));
    await machine.unknown("/y/store", "/dev/sda");
  }),
);

test(
  "metadata devices of a thin pool and of a cache",
  on(async (machine) => {
    machine.disk("8:16", "sdb").disk("8:32", "sdc").disk("8:48", "sdd");
    machine.disk("253:0", "dm-0", { "dm/uuid": "", size: "100" });
    machine.disk("253:1", "dm-1", { "dm/uuid": "", size: "50" });
    machine.tree.slave("block/dm-0", "block/sdb").slave("block/dm-0", "block/sdc");
    machine.tree.slave("block/dm-1", "block/dm-0").mount("253:1", "/t", "ext4", "/dev/dm-1");
    machine.file("/t/store", 9, "253:1");
    await machine.refused("/t/store", "/dev/sdb");
    await machine.refused("/t/store", "/dev/sdc");
    await machine.accepted("/t/store", "/dev/sdd");
  }),
);

const LOCAL = `Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.5
           /32 link UNICAST
           /32 host LOCAL
        |-- 10.0.0.9
           /32 link UNICAST`;

/** A host whose address is 10.0.0.5, with a container at 172.17.0.2, and files in /srv. */
function server(machine: Machine): Machine {
  machine.addresses("self", 1, LOCAL, "fe8000000000000000fc00fffe000001 04 40 20 80 eth0");
  machine.addresses("70", 2, "|-- 172.17.0.2\n   /32 host LOCAL");
  machine.disk("8:16", "sdb").disk("8:32", "sdc").tree.mount("8:16", "/srv", "ext4", "/dev/sdb");
  machine.proc("sys/kernel/hostname", "Here.example.org");
  return machine.file("/srv/a.img", 5, "8:16").file("/srv/dir", 6, "8:16");
}

test(
  "files that this host exports by NFS are its own files",
  on(async (machine) => {
    server(machine).proc("exports", "/srv\t*(rw,sync,wdelay)\n/srv/exp\\040ort\t*(rw)");
    const sources = [
      ["localhost:/srv", "rw,vers=3,addr=127.0.0.1"],
      ["here:/srv", "rw,vers=4.2,addr=10.0.0.5"],
      ["[fe80::fc:ff:fe00:1%eth0]:/srv", "rw,vers=4.2,addr=fe80::fc:ff:fe00:1%eth0"],
      ["other:/srv", "rw,vers=3,addr=::ffff:10.0.0.5"],
    ] as const;
    for (const [i, [source, options]] of sources.entries()) {
      machine.tree.mount(
        `0:${70 + i}`,
        `/n${i}`,
        options.includes("4.2") ? "nfs4" : "nfs",
        source,
        options,
      );
      machine.file(`/n${i}/a.img`, 5, `0:${70 + i}`);
      assert.match(
        await machine.refused(`/n${i}/a.img`, "/dev/sdb"),
        `nfs${options.includes("4.2") ? "4" : ""} on ${source} → /srv/a.img → ext4 on /dev/sdb`,
      );
      await machine.accepted(`/n${i}/a.img`, "/dev/sdc");
    }
    // The same file, locally behind a loop device.
    machine.loop(0, "/srv/a.img");
    assert.match(await machine.refused("/n0/a.img", "/dev/loop0"), /\/srv\/a\.img/);
  }),
);

test(
  "the root of NFS 4, and exports that this host does not know of",
  on(async (machine) => {
    server(machine).proc("exports", "# Path Client(Flags)\n/srv\t10.0.0.0/8(rw,fsid=0,sync)");
    const own = "addr=10.0.0.5";
    machine.tree.mount("0:70", "/n", "nfs4", "here:/", `rw,vers=4.2,${own}`);
    machine.tree.mount("0:71", "/m", "nfs", "here:/other", `rw,vers=3,${own}`);
    machine.tree.mount("0:72", "/c", "nfs", "container:/srv", "rw,vers=3,addr=172.17.0.2");
    machine.file("/n/dir", 6, "0:70").file("/m/a", 7, "0:71").file("/c/a", 8, "0:72");
    await machine.refused("/n/dir", "/dev/sdb");
    await machine.accepted("/n/dir", "/dev/sdc");
    assert.match(
      await machine.unknown("/m/a", "/dev/sdc"),
      "here:/other is exported by this host, and not in its tables of exports",
    );
    assert.match(await machine.unknown("/c/a", "/dev/sdc"), "in another namespace");
    machine.file("/n/gone", 9, "0:70");
    assert.match(await machine.unknown("/n/gone", "/dev/sdc"), "ENOENT: /srv/gone");
  }),
);

test(
  "file systems of other hosts lie on no device; shares of this one are not looked through",
  on(async (machine) => {
    server(machine);
    const elsewhere = [
      ["nfs4", "there:/srv", "rw,vers=4.2,addr=10.0.0.9"],
      ["nfs", "[2001:db8::5]:/srv", "rw,addr=2001:db8::5"],
      ["cifs", "//10.0.0.9/share", "rw,addr=10.0.0.9"],
      ["fuse.sshfs", "me@there:/srv", "rw"],
      ["fuse.sshfs", "me@here.example.com:/srv", "rw"],
      ["9p", "shared", "rw,trans=virtio"],
      ["virtiofs", "shared", "rw"],
    ] as const;
    for (const [i, [fsType, source, options]] of elsewhere.entries()) {
      machine.tree.mount(`0:${70 + i}`, `/n${i}`, fsType, source, options);
      machine.file(`/n${i}/store`, 9, `0:${70 + i}`);
      await machine.accepted(`/n${i}/store`, "/dev/sdb");
    }
    const own = [
      ["cifs", "//localhost/share", "rw,addr=127.0.0.1"],
      ["smb3", "//here/share", "rw,addr=10.0.0.5"],
      ["fuse.sshfs", "me@HERE:/srv", "rw"],
      ["9p", "10.0.0.5", "rw,trans=tcp"],
    ] as const;
    for (const [i, [fsType, source, options]] of own.entries()) {
      machine.tree.mount(`0:${90 + i}`, `/o${i}`, fsType, source, options);
      machine.file(`/o${i}/store`, 9, `0:${90 + i}`);
      const why = `${source} is a server on this host, and it is unknown where it keeps its files`;
      assert.match(await machine.unknown(`/o${i}/store`, "/dev/sdb"), why);
    }
  }),
);

test(
  "file systems that show a directory, and those of programs that say nothing",
  on(async (machine) => {
    server(machine);
    machine.tree.mount("0:70", "/bind", "fuse.bindfs", "/srv");
    machine.tree.mount("0:71", "/secret", "ecryptfs", "/srv/dir");
    machine.tree.mount("0:72", "/merged", "fuse.mergerfs", "a:b");
    machine.tree.mount("0:73", "/own", "fuse", "/dev/fuse");
    machine.tree.mount("0:74", "/over", "fuse.bindfs", "/over");
    machine.tree.mount("0:75", "/tank", "zfs", "tank");
    machine
      .file("/bind/a.img", 1, "0:70")
      .file("/secret/a", 1, "0:71")
      .file("/merged/a", 1, "0:72");
    machine.file("/own/a", 1, "0:73").file("/over/a", 1, "0:74").file("/over", 2, "0:74");
    machine.file("/tank/a", 1, "0:75").loop(0, "/srv/a.img");
    await machine.refused("/bind/a.img", "/dev/loop0");
    assert.match(
      await machine.refused("/secret/a", "/dev/sdb"),
      "ecryptfs on /srv/dir → /srv/dir → ext4 on /dev/sdb",
    );
    await machine.accepted("/secret/a", "/dev/sdc");
    for (const path of ["/merged/a", "/own/a"]) {
      assert.match(await machine.unknown(path, "/dev/sdc"), "it is unknown where");
    }
    assert.match(await machine.unknown("/over/a", "/dev/sdc"), "it covers /over, which it shows");
    assert.match(await machine.unknown("/tank/a", "/dev/sdc"), "its devices are not known (tank)");
  }),
);

test.run();
