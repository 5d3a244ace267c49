/** Proofs of file systems: real ones if their tools are installed, and impostors. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { extSession, proveFileSystem } from "../../dist/continuity/file-system-proof.js";

interface Context {
  root: string;
  image: string;
}

const test = suite<Context>("file system proof");
const MIB = 2 ** 20;
const EXT = 1024;
const NOTHING = { unmounted: null, session: null };

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "blksnap-proof-"));
  context.image = join(context.root, "image");
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

function isMissing(tool: string): boolean {
  const missing = spawnSync(tool, ["-V"]).error !== undefined;
  assert.not.ok(missing && process.env["CI"], `${tool} is not installed`);
  if (missing) console.log(`not run: ${tool} is not installed`);
  return missing;
}

function make({ image }: Context, sizeMib: number, tool: string, ...options: string[]): void {
  writeFileSync(image, "");
  truncateSync(image, sizeMib * MIB);
  use(tool, ...options, image);
}

function use(tool: string, ...words: string[]): void {
  const { status, stderr } = spawnSync(tool, words);
  assert.is(status, 0, `${tool}: ${stderr}`);
}

function prove(bytes: Uint8Array) {
  const read = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
  return proveFileSystem(read, bytes.length, bytes.subarray(0, MIB));
}

function proofOf({ image }: Context) {
  return prove(readFileSync(image));
}

test("an untouched ext4 proves that; a check, a change of settings and mkfs are detected", async (context) => {
  if (isMissing("mkfs.ext4")) return;
  make(context, 16, "mkfs.ext4", "-q", "-F");
  const first = await proofOf(context);
  assert.type(first.unmounted, "string");
  assert.is(first.session, first.unmounted);
  use("e2fsck", "-n", context.image);
  assert.equal(await proofOf(context), first);
  const env = { E2FSCK_TIME: "1999999999", E2FSPROGS_FAKE_TIME: "1999999999" };
  spawnSync("e2fsck", ["-f", "-y", context.image], { env: { ...process.env, ...env } });
  const checked = await proofOf(context);
  assert.is.not(checked.unmounted, first.unmounted);
  make(context, 16, "mkfs.ext4", "-q", "-F");
  assert.is.not((await proofOf(context)).unmounted, first.unmounted);
});

test("an ext4 that is mounted is in a session, and was not unmounted", async (context) => {
  if (isMissing("mkfs.ext4")) return;
  make(context, 16, "mkfs.ext4", "-q", "-F");
  const bytes = readFileSync(context.image);
  bytes.writeUInt32LE(bytes.readUInt32LE(EXT + 0x60) | 4, EXT + 0x60);
  bytes.writeUInt16LE(5, EXT + 0x34);
  const { unmounted, session } = await prove(bytes);
  assert.is(unmounted, null);
  // Its writes while it is mounted do not end the session.
  bytes.writeUInt32LE(bytes.readUInt32LE(EXT + 0x30) + 60, EXT + 0x30);
  assert.is((await prove(bytes)).session, session);
  assert.is(extSession(bytes.subarray(0, 8192), bytes.length)?.session, session);
  bytes.writeUInt16LE(6, EXT + 0x34);
  assert.is.not((await prove(bytes)).session, session);
});

for (const options of [[], ["-l", "su=256k"]]) {
  test(`an XFS after mkfs ${options.join(" ")} was unmounted; each part of its log counts`, async (context) => {
    if (isMissing("mkfs.xfs")) return;
    make(context, 320, "mkfs.xfs", "-q", "-f", ...options);
    const bytes = readFileSync(context.image);
    const first = await prove(bytes);
    assert.match(first.unmounted ?? "", /^xfs /);
    assert.is(first.session, null);
    const blockBytes = bytes.readUInt32BE(4);
    const start = bytes.readBigUInt64BE(48);
    const shift = BigInt(bytes.readUInt8(124));
    const group = Number(start >> shift);
    const inGroup = Number(start & ((1n << shift) - 1n));
    const log = (group * bytes.readUInt32BE(84) + inGroup) * blockBytes;
    const touched = Buffer.from(bytes);
    // A mount marks the blocks after the head like this: with the previous cycle.
    touched.writeUInt32BE(0xfeedbabe, log + 600 * 512);
    assert.is.not((await prove(touched)).unmounted, first.unmounted);
    // The record is no longer one of an unmount.
    const headers = [...Array(64).keys()].filter(
      (block) => bytes.readUInt32BE(log + block * 512) === 0xfeedbabe,
    );
    const mounted = Buffer.from(bytes);
    for (const block of headers) mounted.writeUInt32BE(2, log + block * 512 + 40);
    assert.is((await prove(mounted)).unmounted, null);
  });
}

test("a file system that shares the device with another header proves nothing", async (context) => {
  if (isMissing("mkfs.ext4")) return;
  make(context, 16, "mkfs.ext4", "-q", "-F");
  const bytes = readFileSync(context.image);
  const impostors: [string, (image: Buffer) => void][] = [
    ["a partition table", (image) => void image.writeUInt16LE(0xaa55, 510)],
    ["a GPT", (image) => void image.write("EFI PART", 512)],
    ["LUKS", (image) => void image.write("LUKS", 0)],
    ["a physical volume", (image) => void image.write("LABELONE", 512)],
    ["md 1.2", (image) => void image.writeUInt32LE(0xa92b4efc, 4096)],
    ["bcache", (image) => void image.write("c68573f64e1a45ca8265f57f48ba6d81", 4120, "hex")],
    ["swap", (image) => void image.write("SWAPSPACE2", 4086)],
    ["an external journal", (image) => void image.writeUInt32LE(8, EXT + 0x60)],
    ["a larger device", (image) => void image.writeUInt32LE(2 ** 20, EXT + 4)],
    ["an XFS", (image) => void image.write("XFSB", 0)],
  ];
  for (const [what, write] of impostors) {
    const image = Buffer.from(bytes);
    write(image);
    assert.equal(await prove(image), NOTHING, what);
  }
  assert.equal(await prove(Buffer.alloc(MIB)), NOTHING);
  assert.equal(await prove(Buffer.alloc(4096)), NOTHING);
});

test.run();
