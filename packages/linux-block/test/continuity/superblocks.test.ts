import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacksPrograms, testUnless } from "@blksnap/testing";
import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { fileReader } from "../../dist/continuity/device-bytes.js";
import { type ContentDigest, digestContents } from "../../dist/continuity/superblocks.js";
import { findXfsLogHead, parseXfsSuperblock } from "../../dist/continuity/xfs-log.js";

const test = suite("superblocks");
const KIB = 1024;
const MIB = 1024 * KIB;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const UUID_BYTES = Buffer.from(UUID.replaceAll("-", ""), "hex");

/** A zeroed device in memory that fails reads beyond its end and oversized ones. */
class MemoryDevice {
  readonly capacityBytes: number;
  readBytes = 0;
  reads = 0;
  readonly #written: { at: number; bytes: Uint8Array }[] = [];

  constructor(capacityBytes: number) {
    this.capacityBytes = capacityBytes;
  }

  write(at: number, bytes: Uint8Array | string): void {
    this.#written.push({ at, bytes: Buffer.from(bytes) });
  }

  readonly read = async (offsetBytes: number, lengthBytes: number): Promise<Uint8Array> => {
    assert.ok(Number.isSafeInteger(offsetBytes) && offsetBytes >= 0, `offset ${offsetBytes}`);
    assert.ok(Number.isSafeInteger(lengthBytes) && lengthBytes > 0, `length ${lengthBytes}`);
    assert.ok(
      offsetBytes + lengthBytes <= this.capacityBytes,
      `beyond: ${offsetBytes}+${lengthBytes}`,
    );
    assert.is(offsetBytes % 4096, 0, `unaligned: ${offsetBytes}`);
    this.reads += 1;
    this.readBytes += lengthBytes;
    const result = new Uint8Array(lengthBytes);
    for (const { at, bytes } of this.#written) {
      const from = Math.max(at, offsetBytes);
      const to = Math.min(at + bytes.length, offsetBytes + lengthBytes);
      if (from < to) result.set(bytes.subarray(from - at, to - at), from - offsetBytes);
    }
    return result;
  };

  digest(): Promise<ContentDigest> {
    return digestContents(this.read, this.capacityBytes);
  }
}

/** Whether the digest covers this byte. */
async function notices(make: () => MemoryDevice, at: number): Promise<boolean> {
  const [untouched, touched] = [make(), make()];
  touched.write(at, Uint8Array.of(0x5a));
  return (await untouched.digest()).digest !== (await touched.digest()).digest;
}

function extDevice(): MemoryDevice {
  const device = new MemoryDevice(64 * MIB);
  device.write(KIB + 56, Uint8Array.of(0x53, 0xef));
  device.write(KIB + 104, UUID_BYTES);
  return device;
}

function btrfsDevice(capacityBytes = 128 * MIB): MemoryDevice {
  const device = new MemoryDevice(capacityBytes);
  device.write(64 * KIB + 48, Uint8Array.of(0, 0, 1));
  device.write(64 * KIB + 64, "_BHRfS_M");
  device.write(64 * KIB + 267, UUID_BYTES);
  return device;
}

interface XfsLayout {
  blockLog2: number;
  groupBlocks: number;
  groups: number;
  groupLog2: number;
  logStart: bigint;
  logBlocks: number;
}
/** Groups of 9000 blocks: the bits of a group's number are not where a multiple of 9000 would be. */
const LAYOUT: XfsLayout = {
  blockLog2: 12,
  groupBlocks: 9000,
  groups: 4,
  groupLog2: 14,
  logStart: (2n << 14n) + 6n,
  logBlocks: 2000,
};
const LOG_BYTES = (2 * 9000 + 6) * 4096;
const LOG_SECTORS = 2000 * 8;

function xfsDevice(changes: Partial<XfsLayout> = {}): MemoryDevice {
  const layout = { ...LAYOUT, ...changes };
  const device = new MemoryDevice(4 * 9000 * 4096);
  const superblock = Buffer.alloc(512);
  superblock.write("XFSB", 0, "latin1");
  superblock.writeUInt32BE(2 ** layout.blockLog2, 4);
  UUID_BYTES.copy(superblock, 32);
  superblock.writeBigUInt64BE(layout.logStart, 48);
  superblock.writeUInt32BE(layout.groupBlocks, 84);
  superblock.writeUInt32BE(layout.groups, 88);
  superblock.writeUInt32BE(layout.logBlocks, 96);
  superblock.writeUInt8(layout.blockLog2, 120);
  superblock.writeUInt8(layout.groupLog2, 124);
  device.write(0, superblock);
  return device;
}

/** An XFS whose log has come to `head` in round 8, where every 32nd block is a record's header. */
function xfsWithHead(head: number): MemoryDevice {
  const device = xfsDevice();
  const log = Buffer.alloc(LOG_SECTORS * 512);
  for (let block = 0; block < LOG_SECTORS; block++) {
    const header = block % 32 === 0;
    if (header) log.writeUInt32BE(0xfeedbabe, block * 512);
    log.writeUInt32BE(block < head ? 8 : 7, block * 512 + (header ? 4 : 0));
  }
  device.write(LOG_BYTES, log);
  return device;
}

test("the edges of a device take two reads, and their digest is that of pieces of 64 KiB", async () => {
  const device = new MemoryDevice(64 * MIB);
  device.write(63 * MIB + 64 * KIB + 5, "end");
  const { digest } = await device.digest();
  assert.is(device.reads, 2);
  // As recorded by earlier versions.
  assert.is(digest, "fbbed8759459a728333f4b42cc777c729dc69398c99ee976192608ece0b85f82");
});

test("the first and the last MiB of any device are in the digest, and no more is read", async () => {
  const make = () => new MemoryDevice(64 * MIB);
  for (const at of [0, 511, 512, MIB - 1, 63 * MIB, 64 * MIB - 512, 64 * MIB - 1]) {
    assert.ok(await notices(make, at), `byte ${at} went unnoticed`);
  }
  assert.not.ok(await notices(make, 32 * MIB));
  const device = make();
  const { fileSystem, uuid, digest } = await device.digest();
  assert.equal([fileSystem, uuid], [null, null]);
  assert.match(digest, /^[0-9a-f]{64}$/);
  assert.is(device.readBytes, 2 * MIB);
});

test("a device of any size, even smaller than the digest's ranges", async () => {
  for (const capacityBytes of [512, 4096, 66 * KIB, MIB, MIB + 512, 2 * MIB - 512, 2 * MIB + 512]) {
    const make = () => new MemoryDevice(capacityBytes);
    for (const at of [0, capacityBytes - 1]) {
      assert.ok(await notices(make, at), `byte ${at} of ${capacityBytes} went unnoticed`);
    }
  }
});

test("ext4: found by its superblock, which is in the digest", async () => {
  const { fileSystem, uuid } = await extDevice().digest();
  assert.equal([fileSystem, uuid], ["ext4", UUID]);
  const MOUNT_TIME = KIB + 44;
  assert.ok(await notices(extDevice, MOUNT_TIME));
});

test("btrfs: both superblocks are in the digest", async () => {
  const { fileSystem, uuid } = await btrfsDevice().digest();
  assert.equal([fileSystem, uuid], ["btrfs", UUID]);
  const GENERATION = 72;
  assert.ok(await notices(btrfsDevice, 64 * KIB + GENERATION));
  assert.ok(await notices(btrfsDevice, 64 * MIB + GENERATION));
  assert.not.ok(await notices(btrfsDevice, 64 * MIB + 8 * KIB));
});

test("btrfs: a device that ends before or within the second superblock", async () => {
  for (const capacityBytes of [16 * MIB, 64 * MIB, 64 * MIB + 512]) {
    assert.is((await btrfsDevice(capacityBytes).digest()).fileSystem, "btrfs");
  }
});

test("XFS: the head of the log is found wherever it is", async () => {
  const heads = [1, 2, 3, 31, 32, 33, 64, 4095, 4096, 4097, 9999, LOG_SECTORS - 2, LOG_SECTORS - 1];
  for (const head of heads) {
    const device = xfsWithHead(head);
    const geometry = parseXfsSuperblock(await device.read(0, 4096), device.capacityBytes);
    assert.equal(geometry?.log, { startBytes: LOG_BYTES, lengthBytes: LOG_SECTORS * 512 });
    const found = await findXfsLogHead(device.read, geometry!.log!);
    assert.equal([found.block, found.cycle], [head, 8], `head ${head}`);
    const bytes = found.before.reduce((sum, range) => sum + range.endBytes - range.startBytes, 0);
    assert.ok(bytes >= 2 * MIB && bytes <= 2 * MIB + 4 * 4096, `${bytes} bytes before ${head}`);
  }
});

test("XFS: a log that ends exactly where a round does has its head at the start", async () => {
  for (const head of [0, LOG_SECTORS]) {
    const device = xfsWithHead(head);
    const geometry = parseXfsSuperblock(await device.read(0, 4096), device.capacityBytes);
    assert.is((await findXfsLogHead(device.read, geometry!.log!)).block, 0);
  }
});

test("XFS: a moved head and what was logged before it change the digest, also across the end", async () => {
  assert.equal((await xfsWithHead(5000).digest()).fileSystem, "xfs");
  assert.is((await xfsWithHead(5000).digest()).uuid, UUID);
  const digests = new Set<string>();
  for (const head of [0, 1, 2, 5000, 5001, 5008, LOG_SECTORS - 1]) {
    digests.add((await xfsWithHead(head).digest()).digest);
  }
  assert.is(digests.size, 7);
  // In the data of a block that was written last, and in one 1 MiB earlier.
  for (const block of [4999, 4999 - 2048]) {
    assert.ok(await notices(() => xfsWithHead(5000), LOG_BYTES + block * 512 + 100));
  }
  for (const block of [9, LOG_SECTORS - 1, LOG_SECTORS - 2048]) {
    assert.ok(await notices(() => xfsWithHead(10), LOG_BYTES + block * 512 + 100));
  }
  assert.not.ok(await notices(() => xfsWithHead(5000), LOG_BYTES + 12_000 * 512 + 100));
});

test("XFS: the log on another device leaves only the superblock in the digest", async () => {
  const { fileSystem, uuid } = await xfsDevice({ logStart: 0n }).digest();
  assert.equal([fileSystem, uuid], ["xfs", UUID]);
});

test("XFS: a superblock that contradicts itself or the device is not a file system", async () => {
  const wrong: Partial<XfsLayout>[] = [
    { blockLog2: 8 },
    { blockLog2: 17 },
    { groupBlocks: 0 },
    { groupBlocks: 2 ** 14 + 1 },
    { groups: 2 },
    { groupLog2: 32 },
    { groupLog2: 255 },
    { logStart: 2n ** 64n - 1n },
    { logStart: (2n << 14n) + 7001n },
    { logBlocks: 0 },
    { logBlocks: 2 ** 32 - 1 },
    { groups: 2 ** 32 - 1, logStart: (4n << 14n) + 6n },
  ];
  for (const changes of wrong) {
    const { fileSystem, uuid } = await xfsDevice(changes).digest();
    assert.equal([fileSystem, uuid], [null, null], Object.keys(changes).join());
  }
});

test("garbage in superblocks causes neither failures nor distant reads", async () => {
  const field32 = fc.oneof(
    fc.integer({ min: 0, max: 65536 }),
    fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  );
  const layout = fc.record({
    blockLog2: fc.integer({ min: 9, max: 16 }),
    groupBlocks: field32,
    groups: field32,
    groupLog2: fc.integer({ min: 0, max: 255 }),
    logStart: fc.oneof(fc.bigInt(0n, 1n << 20n), fc.bigInt(0n, (1n << 64n) - 1n)),
    logBlocks: field32,
  });
  const noise = fc.uint8Array({ minLength: 1, maxLength: 4096 });
  await fc.assert(
    fc.asyncProperty(layout, noise, noise, async (changes, log, btrfs) => {
      const device = xfsDevice(changes);
      device.write(LOG_BYTES, log);
      device.write(64 * KIB, btrfs);
      device.write(64 * KIB + 64, "_BHRfS_M");
      await device.digest();
      assert.ok(device.readBytes <= 8 * MIB, `${device.readBytes} bytes`);
      assert.ok(device.reads <= 128, `${device.reads} reads`);
    }),
    { numRuns: 500 },
  );
});

test("a device error is passed to the caller", async () => {
  try {
    await digestContents(() => Promise.reject(new Error("EIO")), MIB);
    assert.unreachable("the error was swallowed");
  } catch (error) {
    assert.is((error as Error).message, "EIO");
  }
});

/** An image made by the real tool, 512 MiB, sparse. */
async function withImage(
  command: string,
  args: readonly string[],
  use: (path: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-superblocks-"));
  try {
    const image = join(folder, "image");
    writeFileSync(image, "");
    truncateSync(image, 512 * MIB);
    run(command, [...args, image]);
    await use(image);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function run(command: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  assert.is(status, 0, `${command}: ${stderr}`);
  return stdout;
}

async function digestFile(path: string): Promise<ContentDigest> {
  const file = await open(path);
  try {
    return await digestContents(fileReader(file), (await file.stat()).size);
  } finally {
    await file.close();
  }
}

testUnless(test, lacksPrograms("mkfs.ext4", "tune2fs"))(
  "mkfs.ext4's image, and one more mount of it",
  async () => {
    await withImage("mkfs.ext4", ["-q", "-F", "-U", UUID], async (image) => {
      const before = await digestFile(image);
      assert.equal([before.fileSystem, before.uuid], ["ext4", UUID]);
      assert.equal(await digestFile(image), before);
      run("tune2fs", ["-C", "7", image]);
      assert.is.not((await digestFile(image)).digest, before.digest);
    });
  },
);

testUnless(test, lacksPrograms("mkfs.btrfs", "blkid"))("mkfs.btrfs's image", async () => {
  await withImage("mkfs.btrfs", ["-q"], async (image) => {
    const { fileSystem, uuid } = await digestFile(image);
    const expected = run("blkid", ["-p", "-s", "UUID_SUB", "-o", "value", image]).trim();
    assert.equal([fileSystem, uuid], ["btrfs", expected]);
  });
});

testUnless(test, lacksPrograms("mkfs.xfs", "xfs_logprint"))(
  "mkfs.xfs's images, judged by xfs_logprint",
  async () => {
    const layouts = [[], ["-b", "size=1024"], ["-s", "size=4096"], ["-d", "agcount=7"]];
    for (const layout of layouts) {
      await withImage("mkfs.xfs", ["-q", "-m", `uuid=${UUID}`, ...layout], async (image) => {
        const before = await digestFile(image);
        assert.equal([before.fileSystem, before.uuid], ["xfs", UUID], layout.join(" "));
        const file = await open(image);
        try {
          const read = fileReader(file);
          const geometry = parseXfsSuperblock(await read(0, 4096), 512 * MIB);
          const { block } = await findXfsLogHead(read, geometry!.log!);
          const printed = run("xfs_logprint", ["-t", image]);
          assert.match(printed, new RegExp(`daddr: ${geometry!.log!.startBytes / 512} length: `));
          assert.match(printed, new RegExp(`head: ${block} `));
        } finally {
          await file.close();
        }
      });
    }
  },
);

test("a file that is shorter than stated is an error", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-superblocks-"));
  const path = join(folder, "image");
  writeFileSync(path, Buffer.alloc(8192));
  const file = await open(path);
  try {
    await digestContents(fileReader(file), 3 * MIB);
    assert.unreachable("it was accepted");
  } catch (error) {
    assert.match((error as Error).message, "ends at byte 8192");
  } finally {
    await file.close();
    rmSync(folder, { recursive: true });
  }
});

test.run();
