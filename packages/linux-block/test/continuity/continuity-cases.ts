/** Possible events of an original while it was not tracked, and the expected verdicts. */
import type { PersistedIdentity } from "../../dist/continuity/continuity.js";
import type { DeviceIdentity } from "../../dist/continuity/device-identity.js";
import type { WriteCounters } from "../../dist/continuity/write-counters.js";

const DISK: DeviceIdentity = {
  wwid: "naa.5",
  serial: null,
  dmUuid: null,
  partition: null,
  partUuid: null,
  contentUuid: "u-1",
};
const NAMELESS: DeviceIdentity = { ...DISK, wwid: null, contentUuid: null };
export const XFS = { fileSystem: "xfs", uuid: "u-1", digest: "d-1" } as const;
const ELSEWHERE = { ...DISK, startBytes: 4096 };
const PROVEN = { ...XFS, proof: { unmounted: "t", session: "t" } };
/** Detached, or last seen, in boot b-1, after 5000 sectors. */
export const BLOCK: PersistedIdentity = {
  capacityBytes: 1 << 30,
  logicalBlockBytes: 512,
  identity: DISK,
  content: XFS,
  witness: {
    bootId: "b-1",
    diskseq: "7",
    sleptMs: 0,
    writeSectors: 5000,
    discardSectors: 900,
    mtimeNs: null,
    ctimeNs: null,
  },
};
export const FILE: PersistedIdentity = {
  ...BLOCK,
  identity: NAMELESS,
  witness: {
    bootId: "b-1",
    diskseq: null,
    writeSectors: null,
    discardSectors: null,
    mtimeNs: "100",
    ctimeNs: "200",
  },
};

const UNCOUNTED: Partial<WriteCounters> = { writeSectors: null, discardSectors: null };
const UNTOUCHED: Partial<WriteCounters> = { writeSectors: 0, discardSectors: 0 };
const NEXT_BOOT: Partial<WriteCounters> = { bootId: "b-2" };
const MADE_ANEW: Partial<WriteCounters> = { diskseq: "8" };
const OTHER_DIGEST: Partial<PersistedIdentity> = { content: { ...XFS, digest: "d-2" } };

export interface Change {
  readonly was?: Partial<PersistedIdentity>;
  readonly wasCounters?: Partial<WriteCounters>;
  readonly is?: Partial<PersistedIdentity>;
  readonly isCounters?: Partial<WriteCounters>;
}
export type Expected =
  | "continue"
  | "other_device"
  | "capacity_changed"
  | "foreign_write"
  | "unclean";
type Case = [what: string, change: Change, clean: Expected, unclean: Expected, why?: RegExp];

export const BLOCK_CASES: Case[] = [
  // The same names for other bytes of the disk.
  [
    "another start, all else equal",
    {
      was: { identity: { ...DISK, partition: 1, startBytes: 1 << 20 } },
      is: { identity: { ...DISK, partition: 1, startBytes: 2 << 20 } },
    },
    "foreign_write",
    "foreign_write",
    /first byte on the disk was 1048576 and is 2097152/,
  ],
  [
    "another start, and a file system that proves all else",
    {
      was: { identity: { ...DISK, startBytes: 0 }, content: PROVEN },
      is: { identity: ELSEWHERE, content: PROVEN },
    },
    "foreign_write",
    "foreign_write",
  ],
  ["a start not noted", { is: { identity: ELSEWHERE } }, "foreign_write", "foreign_write"],
  [
    "a start that is not known now",
    {
      was: { identity: { ...DISK, startBytes: 0 } },
      is: { identity: { ...DISK, startBytes: null } },
    },
    "foreign_write",
    "foreign_write",
    /was 0 and is none/,
  ],
  [
    "a whole disk, noted now",
    { is: { identity: { ...DISK, startBytes: 0 } } },
    "continue",
    "unclean",
  ],
  // Another device, whatever else agrees.
  [
    "another disk",
    { is: { identity: { ...DISK, wwid: "naa.6" } } },
    "other_device",
    "other_device",
    /WWID was naa.5 and is naa.6/,
  ],
  [
    "its partition",
    { is: { identity: { ...DISK, partition: 1 } } },
    "other_device",
    "other_device",
    /partition number was none and is 1/,
  ],
  [
    "another disk of another size",
    { is: { identity: { ...DISK, wwid: "naa.6" }, capacityBytes: 1 << 20 } },
    "other_device",
    "other_device",
  ],
  [
    "a regular file in its place",
    { is: { identity: NAMELESS }, isCounters: FILE.witness },
    "other_device",
    "other_device",
    /was a device and is a file/,
  ],
  // Its size.
  [
    "it grew",
    { is: { capacityBytes: 2 ** 31 } },
    "capacity_changed",
    "capacity_changed",
    /capacity in bytes was 1073741824 and is 2147483648/,
  ],
  [
    "it grew and was written to",
    { is: { capacityBytes: 2 ** 31, ...OTHER_DIGEST }, isCounters: { writeSectors: 1 } },
    "capacity_changed",
    "capacity_changed",
  ],
  [
    "its logical blocks are larger",
    { is: { logicalBlockBytes: 4096 } },
    "capacity_changed",
    "capacity_changed",
    /block size was 512 and is 4096/,
  ],
  // The same incarnation: counters continued.
  ["same incarnation, untouched", {}, "continue", "unclean"],
  [
    "same incarnation, untouched, slept",
    { isCounters: { sleptMs: 60_000 } },
    "unclean",
    "unclean",
    /the system slept/,
  ],
  ["unknown whether it slept", { wasCounters: { sleptMs: null } }, "unclean", "unclean"],
  [
    "same incarnation, 8 sectors written",
    { isCounters: { writeSectors: 5008 } },
    "foreign_write",
    "unclean",
    /8 sectors were written while/,
  ],
  [
    "same incarnation, 16 sectors discarded",
    { isCounters: { discardSectors: 916 } },
    "foreign_write",
    "unclean",
    /16 sectors were discarded while/,
  ],
  [
    "same incarnation, both",
    { isCounters: { writeSectors: 5001, discardSectors: 902 } },
    "foreign_write",
    "unclean",
    /1 sector was written and 2 sectors were discarded/,
  ],
  [
    "same incarnation, fewer than before",
    { isCounters: { writeSectors: 10 } },
    "foreign_write",
    "unclean",
    /counters were reset/,
  ],
  [
    "same incarnation, content changed past the counters",
    { is: OTHER_DIGEST },
    "foreign_write",
    "unclean",
    /xfs's superblock, log or partition table/,
  ],
  [
    "same incarnation, formatted",
    {
      is: {
        identity: { ...DISK, contentUuid: "u-2" },
        content: { fileSystem: "ext4", uuid: "u-2", digest: "d-2" },
      },
    },
    "foreign_write",
    "unclean",
    /xfs then, ext4 now/,
  ],
  [
    "same incarnation, wiped",
    {
      is: {
        identity: { ...DISK, contentUuid: null },
        content: { fileSystem: null, uuid: null, digest: "d-2" },
      },
    },
    "foreign_write",
    "unclean",
    /xfs then, no known file system now/,
  ],
  [
    "same incarnation, nothing counts writes",
    { wasCounters: UNCOUNTED, isCounters: UNCOUNTED },
    "unclean",
    "unclean",
  ],
  [
    "same incarnation, nothing counts writes, content changed",
    { wasCounters: UNCOUNTED, isCounters: UNCOUNTED, is: OTHER_DIGEST },
    "foreign_write",
    "unclean",
  ],
  ["same incarnation, counted only before", { isCounters: UNCOUNTED }, "unclean", "unclean"],
  ["same incarnation, counted only now", { wasCounters: UNCOUNTED }, "unclean", "unclean"],
  [
    "same incarnation, discards uncounted",
    { wasCounters: { discardSectors: null }, isCounters: { discardSectors: null } },
    "unclean",
    "unclean",
  ],
  // Another boot: counters began at 0.
  ["next boot, untouched", { isCounters: { ...NEXT_BOOT, ...UNTOUCHED } }, "unclean", "unclean"],
  [
    "next boot, untouched, other diskseq",
    { isCounters: { ...NEXT_BOOT, ...UNTOUCHED, ...MADE_ANEW } },
    "unclean",
    "unclean",
  ],
  [
    "next boot, untouched, no diskseq",
    { wasCounters: { diskseq: null }, isCounters: { ...NEXT_BOOT, ...UNTOUCHED, diskseq: null } },
    "unclean",
    "unclean",
  ],
  [
    "next boot, counters as before",
    { isCounters: NEXT_BOOT },
    "foreign_write",
    "foreign_write",
    /5000 sectors were written and 900 sectors were discarded since the device appeared/,
  ],
  [
    "next boot, 1 sector written",
    { isCounters: { ...NEXT_BOOT, ...UNTOUCHED, writeSectors: 1 } },
    "foreign_write",
    "foreign_write",
  ],
  [
    "next boot, 1 sector discarded",
    { isCounters: { ...NEXT_BOOT, ...UNTOUCHED, discardSectors: 1 } },
    "foreign_write",
    "foreign_write",
  ],
  // After a crash the tracker itself wrote the content, and nothing recorded it.
  [
    "next boot, untouched, content changed",
    { is: OTHER_DIGEST, isCounters: { ...NEXT_BOOT, ...UNTOUCHED } },
    "foreign_write",
    "unclean",
  ],
  ["next boot, uncounted", { isCounters: { ...NEXT_BOOT, ...UNCOUNTED } }, "unclean", "unclean"],
  [
    "next boot, nothing counts writes, content changed",
    { is: OTHER_DIGEST, isCounters: { ...NEXT_BOOT, ...UNCOUNTED } },
    "foreign_write",
    "unclean",
  ],
  [
    "next boot, only writes counted, none",
    { isCounters: { ...NEXT_BOOT, writeSectors: 0, discardSectors: null } },
    "unclean",
    "unclean",
  ],
  [
    "next boot, only writes counted, some",
    { isCounters: { ...NEXT_BOOT, writeSectors: 1, discardSectors: null } },
    "foreign_write",
    "foreign_write",
  ],
  // The device was created anew in the same boot.
  ["made anew, untouched", { isCounters: { ...MADE_ANEW, ...UNTOUCHED } }, "unclean", "unclean"],
  [
    "made anew, written",
    { isCounters: { ...MADE_ANEW, ...UNTOUCHED, writeSectors: 8 } },
    "unclean",
    "unclean",
  ],
  [
    "made anew, content changed",
    { is: OTHER_DIGEST, isCounters: { ...MADE_ANEW, ...UNTOUCHED } },
    "foreign_write",
    "unclean",
  ],
  // It is unknown whether it was created anew.
  [
    "same boot, no diskseq then",
    { wasCounters: { diskseq: null }, isCounters: UNTOUCHED },
    "unclean",
    "unclean",
  ],
  [
    "same boot, no diskseq now",
    { isCounters: { diskseq: null, ...UNTOUCHED } },
    "unclean",
    "unclean",
  ],
  ["same boot, no diskseq, written", { isCounters: { diskseq: null } }, "unclean", "unclean"],
  // Nothing distinguishes the devices.
  [
    "nameless, next boot, untouched",
    {
      was: { identity: NAMELESS },
      is: { identity: NAMELESS },
      isCounters: { ...NEXT_BOOT, ...UNTOUCHED },
    },
    "unclean",
    "unclean",
  ],
  [
    "nameless, next boot, written",
    { was: { identity: NAMELESS }, is: { identity: NAMELESS }, isCounters: NEXT_BOOT },
    "foreign_write",
    "foreign_write",
  ],
  [
    "nameless, same incarnation, untouched",
    { was: { identity: NAMELESS }, is: { identity: NAMELESS } },
    "continue",
    "unclean",
  ],
];

export const FILE_CASES: Case[] = [
  ["a file, untouched", {}, "continue", "unclean"],
  ["a file, untouched, next boot", { isCounters: NEXT_BOOT }, "unclean", "unclean"],
  ["a file, untouched, slept", { isCounters: { sleptMs: 60_000 } }, "continue", "unclean"],
  [
    "a file, modified",
    { isCounters: { mtimeNs: "101", ctimeNs: "201" } },
    "foreign_write",
    "unclean",
  ],
  [
    "a file, modified and its mtime put back",
    { isCounters: { ctimeNs: "201" } },
    "foreign_write",
    "unclean",
  ],
  ["a file, content changed under its times", { is: OTHER_DIGEST }, "foreign_write", "unclean"],
  ["a file, grown", { is: { capacityBytes: 2 ** 31 } }, "capacity_changed", "capacity_changed"],
  [
    "a file with a file system, untouched",
    {
      was: { identity: { ...NAMELESS, contentUuid: "u-1" } },
      is: { identity: { ...NAMELESS, contentUuid: "u-1" } },
    },
    "continue",
    "unclean",
  ],
  [
    "a file with another file system",
    {
      was: { identity: { ...NAMELESS, contentUuid: "u-1" } },
      is: { identity: { ...NAMELESS, contentUuid: "u-2" } },
    },
    "other_device",
    "other_device",
  ],
  [
    "a device in the file's place",
    { isCounters: BLOCK.witness },
    "other_device",
    "other_device",
    /was a file and is a device/,
  ],
];
