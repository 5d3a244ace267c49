import { compareIdentity, type DeviceIdentity, readBlockIdentity } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { differingField, readDeviceIdentity } from "../../dist/continuity/device-identity.js";
import type { ContentDigest } from "../../dist/continuity/superblocks.js";
import { FakeKernel } from "./fake-kernel.js";

const test = suite("device identity");
const NOTHING: DeviceIdentity = {
  wwid: null,
  serial: null,
  dmUuid: null,
  partition: null,
  partUuid: null,
  contentUuid: null,
  startBytes: null,
};
const WHOLE: DeviceIdentity = { ...NOTHING, startBytes: 0 };
const CONTENT: ContentDigest = { fileSystem: "xfs", uuid: "u-1", digest: "d" };
const EMPTY: ContentDigest = { fileSystem: null, uuid: null, digest: "d" };
let kernel: FakeKernel;

test.before.each(() => {
  kernel = new FakeKernel();
});

test.after.each(() => kernel.remove());

test("SCSI and NVMe disks have a WWID, a virtio disk its serial, a dm device its UUID", async () => {
  kernel.device("8:0", "scsi/block/sda", { "device/wwid": "naa.5000c500a1b2c3d4" });
  kernel.device("259:0", "nvme/nvme0n1", { wwid: "eui.0025385b71b00e2a" });
  kernel.device("254:0", "virtio/block/vda", { serial: "backup-01" });
  kernel.device("252:0", "virtual/block/dm-0", { "dm/uuid": "LVM-abc" });
  const identities: [string, Partial<DeviceIdentity>][] = [
    ["8:0", { wwid: "naa.5000c500a1b2c3d4" }],
    ["259:0", { wwid: "eui.0025385b71b00e2a" }],
    ["254:0", { serial: "backup-01" }],
    ["252:0", { dmUuid: "LVM-abc" }],
  ];
  for (const [number, known] of identities) {
    const identity = await readBlockIdentity(number, CONTENT, kernel.sysfs);
    assert.equal(identity, { ...WHOLE, contentUuid: "u-1", ...known });
  }
});

test("a partition is identified by its disk, its number, and PARTUUID if the kernel reports it", async () => {
  kernel.device("8:0", "scsi/block/sda", { "device/wwid": "naa.5" });
  const uevent = "MAJOR=8\nPARTN=2\nPARTNAME=PARTUUID=no\nPARTUUID=3F-02\nDISKSEQ=9";
  kernel.device("8:1", "scsi/block/sda/sda1", { partition: "1", start: "8" });
  kernel.device("8:2", "scsi/block/sda/sda2", { partition: "2", start: "2048", uevent });
  const first = await readBlockIdentity("8:1", EMPTY, kernel.sysfs);
  assert.equal(first, { ...NOTHING, wwid: "naa.5", partition: 1, startBytes: 4096 });
  const second = await readBlockIdentity("8:2", EMPTY, kernel.sysfs);
  const expected = { wwid: "naa.5", partition: 2, partUuid: "3f-02", startBytes: 2 ** 20 };
  assert.equal(second, { ...NOTHING, ...expected });
});

test("the place of a loop device is in its file, that of its partition after it", async () => {
  kernel.device("7:0", "virtual/block/loop0", { "loop/offset": "1048576" });
  kernel.device("259:0", "virtual/block/loop0/loop0p1", { partition: "1", start: "8" });
  const starts = ["7:0", "259:0"].map(async (number) => {
    return (await readBlockIdentity(number, EMPTY, kernel.sysfs)).startBytes;
  });
  assert.equal(await Promise.all(starts), [2 ** 20, 2 ** 20 + 4096]);
});

test("an empty attribute is no identity", async () => {
  kernel.device("254:0", "virtio/block/vda", { serial: "" });
  assert.equal(await readBlockIdentity("254:0", EMPTY, kernel.sysfs), WHOLE);
});

test("a regular file, and a device that sysfs does not know, are identified by their content", async () => {
  const expected = { ...NOTHING, contentUuid: "u-1" };
  assert.equal(await readDeviceIdentity(import.meta.filename, CONTENT, kernel.sysfs), expected);
  assert.equal(await readBlockIdentity("8:0", CONTENT, kernel.sysfs), expected);
});

type Case = [
  what: string,
  one: Partial<DeviceIdentity>,
  other: Partial<DeviceIdentity>,
  verdict: "same" | "different" | "unknown",
  by?: keyof DeviceIdentity,
];
const COMPARISONS: Case[] = [
  ["nothing is known of either", {}, {}, "unknown"],
  ["they have no field in common", { wwid: "w" }, { serial: "s" }, "unknown"],
  ["only the partition's number agrees", { partition: 1 }, { partition: 1 }, "unknown"],
  ["one WWID", { wwid: "w" }, { wwid: "w" }, "same"],
  ["two WWIDs", { wwid: "w" }, { wwid: "v" }, "different", "wwid"],
  ["one serial number", { serial: "s" }, { serial: "s" }, "same"],
  ["two serial numbers", { serial: "s" }, { serial: "t" }, "different", "serial"],
  ["one dm UUID", { dmUuid: "d" }, { dmUuid: "d" }, "same"],
  ["two dm UUIDs", { dmUuid: "d" }, { dmUuid: "e" }, "different", "dmUuid"],
  ["one PARTUUID", { partUuid: "p" }, { partUuid: "p" }, "same"],
  [
    "two PARTUUIDs on one disk",
    { wwid: "w", partUuid: "p" },
    { wwid: "w", partUuid: "q" },
    "different",
    "partUuid",
  ],
  ["one file system", { contentUuid: "c" }, { contentUuid: "c" }, "same"],
  ["two file systems", { contentUuid: "c" }, { contentUuid: "d" }, "different", "contentUuid"],
  ["formatted: one WWID", { wwid: "w", contentUuid: "c" }, { wwid: "w", contentUuid: "d" }, "same"],
  [
    "formatted: one serial",
    { serial: "s", contentUuid: "c" },
    { serial: "s", contentUuid: "d" },
    "same",
  ],
  [
    "formatted: one dm UUID",
    { dmUuid: "d", contentUuid: "c" },
    { dmUuid: "d", contentUuid: "e" },
    "same",
  ],
  [
    "PARTUUID alone does not excuse a new file system",
    { partUuid: "p", contentUuid: "c" },
    { partUuid: "p", contentUuid: "d" },
    "different",
    "contentUuid",
  ],
  ["file system removed", { wwid: "w", contentUuid: "c" }, { wwid: "w" }, "same"],
  [
    "a clone on another disk",
    { wwid: "w", contentUuid: "c" },
    { wwid: "v", contentUuid: "c" },
    "different",
    "wwid",
  ],
  [
    "two partitions of one disk",
    { wwid: "w", partition: 1 },
    { wwid: "w", partition: 2 },
    "different",
    "partition",
  ],
  [
    "a disk and its partition",
    { wwid: "w" },
    { wwid: "w", partition: 1 },
    "different",
    "partition",
  ],
  ["one more field is known now", { wwid: "w" }, { wwid: "w", partUuid: "p", serial: "s" }, "same"],
];

for (const [what, one, other, verdict, by] of COMPARISONS) {
  test(`${what}: ${verdict}`, () => {
    const [a, b] = [
      { ...NOTHING, ...one },
      { ...NOTHING, ...other },
    ];
    assert.is(compareIdentity(a, b), verdict);
    assert.is(compareIdentity(b, a), verdict);
    assert.is(differingField(a, b), by ?? null);
  });
}

test.run();
