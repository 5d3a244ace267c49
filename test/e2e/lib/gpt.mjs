/** Partition tables with GUIDs: written by this file, and enlarged by the programs that administrators use, where these are installed. */
import { existsSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { crc32 } from "node:zlib";
import { run } from "./command.mjs";
import { until } from "./wait.mjs";

const SECTOR_BYTES = 512;
const MIB_SECTORS = 2 ** 20 / SECTOR_BYTES;
const ENTRIES = 128;
const ENTRY_BYTES = 128;
const TABLE_SECTORS = (ENTRIES * ENTRY_BYTES) / SECTOR_BYTES;
/** "Linux filesystem data", as it is stored. */
const LINUX_TYPE = Buffer.from("af3dc60f838472478e793d69d8477de4", "hex");

const nameOf = (device) => device.slice("/dev/".length);
const sectorsOf = (device) =>
  Number(readFileSync(`/sys/class/block/${nameOf(device)}/size`, "utf8"));

function entriesOf(sizesMib) {
  const entries = Buffer.alloc(ENTRIES * ENTRY_BYTES);
  let start = MIB_SECTORS;
  for (const [index, sizeMib] of sizesMib.entries()) {
    const entry = entries.subarray(index * ENTRY_BYTES);
    LINUX_TYPE.copy(entry);
    entry.fill(index + 1, 16, 32);
    entry.writeBigUInt64LE(BigInt(start), 32);
    start += sizeMib * MIB_SECTORS;
    entry.writeBigUInt64LE(BigInt(start - 1), 40);
  }
  return entries;
}

/** @param at sector of the header @param other sector of the other one @param table sector of the entries */
function headerOf(entries, { at, other, table, sectors }) {
  const header = Buffer.alloc(SECTOR_BYTES);
  header.write("EFI PART");
  header.writeUInt32LE(0x10000, 8);
  header.writeUInt32LE(92, 12);
  header.writeBigUInt64LE(BigInt(at), 24);
  header.writeBigUInt64LE(BigInt(other), 32);
  header.writeBigUInt64LE(BigInt(2 + TABLE_SECTORS), 40);
  header.writeBigUInt64LE(BigInt(sectors - TABLE_SECTORS - 2), 48);
  header.fill(0x77, 56, 72);
  header.writeBigUInt64LE(BigInt(table), 72);
  header.writeUInt32LE(ENTRIES, 80);
  header.writeUInt32LE(ENTRY_BYTES, 84);
  header.writeUInt32LE(crc32(entries), 88);
  header.writeUInt32LE(crc32(header.subarray(0, 92)), 16);
  return header;
}

/** Covers the disk, for programs that know no GUIDs. */
function protective(sectors) {
  const record = Buffer.alloc(SECTOR_BYTES);
  const entry = record.subarray(446);
  entry[4] = 0xee;
  entry.writeUInt32LE(1, 8);
  entry.writeUInt32LE(sectors - 1, 12);
  record.writeUInt16LE(0xaa55, 510);
  return record;
}

/**
 * Partitions one after the other from the first MiB on, and the table's copy at the end of the device, wherever that is by now.
 * Answers their nodes.
 */
export async function partitionGpt(device, sizesMib) {
  const sectors = sectorsOf(device);
  const entries = entriesOf(sizesMib);
  const [first, last] = [1, sectors - 1];
  const write = (at, ...parts) =>
    run(["dd", `of=${device}`, "bs=512", `seek=${at}`, "conv=notrunc,fsync"], {
      input: Buffer.concat(parts),
    });
  const backup = { at: last, other: first, table: last - TABLE_SECTORS, sectors };
  await write(last - TABLE_SECTORS, entries, headerOf(entries, backup));
  const primary = { at: first, other: last, table: 2, sectors };
  await write(0, protective(sectors), headerOf(entries, primary), entries);
  return reread(device, sizesMib.length);
}

/** Not BLKRRPART, which a front does not support. */
async function reread(device, count) {
  await run(["partx", "--update", device]);
  const nodes = Array.from({ length: count }, (_, index) => `${device}p${index + 1}`);
  await until("the partitions are there", () => nodes.every((node) => existsSync(node)));
  return nodes;
}

/** What enlarges the last partition, by the name of the program. */
const PROGRAMS = {
  async sfdisk(device, sizesMib) {
    const words = ["sfdisk", "--no-reread", "-N", `${sizesMib.length}`, device];
    await run(words, { input: `,${sizesMib.at(-1)}MiB\n` });
    await reread(device, sizesMib.length);
  },
  /** It asks about the place of the copy, and about a partition in use; scripts may answer the first question only. */
  async parted(device, sizesMib) {
    const endMib = sizesMib.reduce((sum, sizeMib) => sum + sizeMib, 1);
    await run(["parted", "--script", "--fix", device, "print"]);
    const words = ["resizepart", `${sizesMib.length}`, `${endMib}MiB`];
    await run(["parted", "---pretend-input-tty", device, ...words], { input: "Yes\n" });
  },
};

const isInstalled = (name) =>
  (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, name)));

/** The ways to give the last partition another size: those of this machine's programs, else the own one. */
export function enlargers() {
  const installed = Object.entries(PROGRAMS).filter(([name]) => isInstalled(name));
  return installed.length > 0 ? installed : [["no program of the system", partitionGpt]];
}
