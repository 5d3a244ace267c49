/**
 * A disk in memory and its content: bytes that the real code reads. What file systems write, and when, is as observed
 * on Linux 7.3 (ext4: the superblock at each mount; XFS: at a mount only the log ahead of its head, the rest when
 * something is logged; btrfs: nothing before the first commit).
 */

import type { Dice } from "@blksnap/testing";
import {
  type ContentDigest,
  digestContents,
} from "../../../linux-block/dist/continuity/superblocks.js";

export type Contents = "raw" | "partitioned" | "ext4" | "xfs" | "btrfs" | "ext4 under md";

const KIB = 1024;
const MIB = KIB * KIB;
/** Outside the first and the last MiB, and outside a log. */
const MIDDLE_BYTES = MIB + 16 * KIB;
const EXT = KIB;
const BTRFS = 64 * KIB;
const LOG_BYTES = MIB + 64 * KIB;
/** More than is read before the head. */
const LOG_BLOCKS = 4608;
/** So near to its end that the ring wraps soon. */
const FIRST_HEAD = LOG_BLOCKS - 20;
const RECORD_MAGIC = 0xfeedbabe;
const UNMOUNT_FLAG = 0x20;

export class Disk {
  readonly contents: Contents;
  readonly capacityBytes: number;
  /** Changes with every write. */
  version = 0;
  isMounted = false;
  /** According to its superblock, or log. */
  isUnmountedInOrder = true;
  readonly #bytes: Buffer;
  #clock = 1_000_000;
  #head = FIRST_HEAD;
  #cycle = 1;
  #digest: { version: number; of: ContentDigest } | undefined;

  constructor(contents: Contents) {
    this.contents = contents;
    this.capacityBytes = contents === "xfs" ? 4.5 * MIB : 2 * MIB + 128 * KIB;
    this.#bytes = Buffer.alloc(this.capacityBytes);
    if (contents === "partitioned") this.#bytes.write("EFI PART", 512);
    if (contents === "ext4" || contents === "ext4 under md") this.#makeExt();
    if (contents === "ext4 under md") this.#bytes.writeUInt32LE(0xa92b4efc, 4096);
    if (contents === "xfs") this.#makeXfs();
    if (contents === "btrfs") this.#makeBtrfs();
  }

  get isFileSystem(): boolean {
    return ["ext4", "xfs", "btrfs"].includes(this.contents);
  }

  /** Whether its superblock, or log, shows every mount. */
  get proves(): boolean {
    return this.contents === "ext4" || this.contents === "xfs";
  }

  get start(): Uint8Array {
    return this.#bytes.subarray(0, 8192);
  }

  async digest(): Promise<ContentDigest> {
    if (this.#digest?.version !== this.version) {
      const read = async (offset: number, length: number) =>
        this.#bytes.subarray(offset, offset + length);
      this.#digest = { version: this.version, of: await digestContents(read, this.capacityBytes) };
    }
    return this.#digest.of;
  }

  /** In the middle, where only counters show it. */
  writeMiddle(dice: Dice): void {
    this.#touch();
    const at = MIDDLE_BYTES + dice.below(8) * 4096;
    this.#bytes.writeUInt32LE(this.version, at);
  }

  writeEdge(dice: Dice): void {
    this.#touch();
    const at = dice.pick([200 * KIB, this.capacityBytes - 300 * KIB]);
    this.#bytes.writeUInt32LE(this.version, at);
  }

  mount(): void {
    this.#touch();
    this.isMounted = true;
    if (this.contents === "ext4") {
      this.#bytes.writeUInt16LE(this.#bytes.readUInt16LE(EXT + 0x34) + 1, EXT + 0x34);
      this.#bytes.writeUInt32LE(this.#clock, EXT + 0x2c);
      this.#bytes.writeUInt32LE(4, EXT + 0x60);
      this.isUnmountedInOrder = false;
    } else if (this.contents === "xfs") this.#voidAhead();
  }

  /** Writes data in place, and perhaps metadata. */
  writeFile(dice: Dice, commits: boolean): void {
    this.writeMiddle(dice);
    if (!commits) return;
    if (this.contents === "xfs") this.#log(0);
    if (this.contents === "btrfs") this.#commitBtrfs();
    if (this.contents === "ext4") this.#bytes.writeUInt32LE(this.#clock, EXT + 0x30);
  }

  unmount(): void {
    this.#touch();
    this.isMounted = false;
    if (this.contents === "ext4") this.#cleanExt();
    if (this.contents === "xfs") this.#log(UNMOUNT_FLAG);
    if (this.contents === "btrfs") this.#commitBtrfs();
  }

  /** A check, or a read-only mount: both replay what a crash has left, and write only in that case. */
  replay(): boolean {
    const isDirty = this.contents === "ext4" && this.#bytes.readUInt32LE(EXT + 0x60) !== 0;
    if (!isDirty) return false;
    this.#touch();
    this.#cleanExt();
    return true;
  }

  /** Another machine uses it, perhaps without writing. */
  useElsewhere(dice: Dice): boolean {
    if (!this.isFileSystem) {
      if (dice.below(4) === 0) this.writeEdge(dice);
      else this.writeMiddle(dice);
      return true;
    }
    // A read-only mount or a check, which replays a crash.
    if (dice.below(4) === 0) return this.replay();
    this.mount();
    if (dice.below(2) === 0) this.writeFile(dice, dice.below(2) === 0);
    if (dice.below(2) === 0) this.unmount();
    this.isMounted = false;
    return true;
  }

  #touch(): void {
    this.version++;
    this.#clock++;
  }

  #makeExt(): void {
    const bytes = this.#bytes;
    bytes.writeUInt32LE(this.capacityBytes / 4096, EXT + 4);
    bytes.writeUInt32LE(2, EXT + 0x18);
    bytes.writeUInt16LE(0xef53, EXT + 0x38);
    bytes.writeUInt16LE(1, EXT + 0x3a);
    bytes.write("0123456789abcdef", EXT + 0x68, "latin1");
  }

  #cleanExt(): void {
    this.isUnmountedInOrder = true;
    this.#bytes.writeUInt32LE(0, EXT + 0x60);
    this.#bytes.writeUInt32LE(this.#clock, EXT + 0x30);
  }

  #makeBtrfs(): void {
    this.#bytes.writeUInt32LE(BTRFS, BTRFS + 48);
    this.#bytes.write("_BHRfS_M", BTRFS + 64, "latin1");
    this.#bytes.write("fedcba9876543210", BTRFS + 267, "latin1");
  }

  #commitBtrfs(): void {
    this.#bytes.writeUInt32LE(this.version, BTRFS + 72);
  }

  #makeXfs(): void {
    const bytes = this.#bytes;
    bytes.write("XFSB", 0, "latin1");
    bytes.writeUInt32BE(4096, 4);
    bytes.write("xfs-uuid-in-here", 32, "latin1");
    bytes.writeBigUInt64BE(BigInt(LOG_BYTES / 4096), 48);
    bytes.writeUInt32BE(this.capacityBytes / 4096, 84);
    bytes.writeUInt32BE(1, 88);
    bytes.writeUInt32BE((LOG_BLOCKS * 512) / 4096, 96);
    bytes.writeUInt8(12, 120);
    bytes.writeUInt8(11, 124);
    for (let block = 0; block < FIRST_HEAD; block++) this.#logBlock(block).writeUInt32BE(1);
    this.#log(UNMOUNT_FLAG);
  }

  #logBlock(block: number): Buffer {
    const at = LOG_BYTES + block * 512;
    return this.#bytes.subarray(at, at + 512);
  }

  /** A record with one operation: its header, and a block of data. */
  #log(flags: number): void {
    const header = this.#logBlock(this.#head);
    header.fill(0);
    header.writeUInt32BE(RECORD_MAGIC, 0);
    header.writeUInt32BE(this.#cycle, 4);
    header.writeUInt32BE(2, 8);
    header.writeUInt32BE(512, 12);
    header.writeUInt32BE(1, 40);
    header.writeUInt32BE(32 * KIB, 320);
    const data = this.#logBlock(this.#head + 1);
    data.fill(0);
    data.writeUInt32BE(this.#cycle, 0);
    data.writeUInt8(flags, 9);
    data.writeUInt32BE(this.version, 12);
    this.isUnmountedInOrder = flags === UNMOUNT_FLAG;
    this.#head += 2;
    if (this.#head < LOG_BLOCKS) return;
    this.#head = 0;
    this.#cycle++;
  }

  /** Voids the ring up to its end, so that its first block is never of the previous round. */
  #voidAhead(): void {
    for (let block = this.#head; block < Math.min(LOG_BLOCKS, this.#head + 64); block++) {
      const bytes = this.#logBlock(block);
      bytes.fill(0);
      bytes.writeUInt32BE(RECORD_MAGIC, 0);
      bytes.writeUInt32BE(this.#cycle - 1, 4);
      bytes.writeUInt32BE(this.version, 24);
    }
  }
}
