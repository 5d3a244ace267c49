/**
 * Each point of a chain of qcow2 files boots: a boot sector prints the content of a later sector on the serial port.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportQcow2 } from "../dist/export-qcow2.js";
import { FakeMachine, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 8 * MIB;
const SECTOR_BYTES = 512;
const TEXT_SECTOR = (6 * MIB) / SECTOR_BYTES;
/** Ends a hang: the machine has no time limit of its own. */
const HANG_MS = 300_000;

/** Reads the sector with the text, sends it to the first serial port, and ends the machine by a byte to port 0x501. */
function bootSector(): Buffer {
  const packetAt = 35;
  const code = [
    [0x31, 0xc0, 0x8e, 0xd8, 0xfc], // xor ax, ax; mov ds, ax; cld
    [0xbe, packetAt, 0x7c, 0xb4, 0x42, 0xcd, 0x13], // mov si, packet; mov ah, 0x42; int 0x13
    [0xbe, 0x00, 0x7e, 0xba, 0xf8, 0x03], // mov si, 0x7e00; mov dx, 0x3f8
    [0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8], // next: lodsb; test al, al; jz done; out dx, al; jmp next
    [0xba, 0x01, 0x05, 0xb0, 0x00, 0xee], // done: mov dx, 0x501; mov al, 0; out dx, al
    [0xf4, 0xeb, 0xfd], // hlt; jmp to it
    [0x10, 0x00, 0x01, 0x00, 0x00, 0x7e, 0x00, 0x00], // packet: a sector to 0x7e00, from ...
  ].flat();
  const sector = Buffer.alloc(SECTOR_BYTES);
  sector.set(code);
  sector.writeBigUInt64LE(BigInt(TEXT_SECTOR), code.length);
  sector.writeUInt16LE(0xaa55, SECTOR_BYTES - 2);
  return sector;
}

/** Output of a machine with this disk. */
async function saidBy(path: string): Promise<string> {
  const disk = `file=${path},format=qcow2,if=ide,snapshot=on`;
  const exit = "isa-debug-exit,iobase=0x501,iosize=1";
  const words = [
    ...["-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot"],
    ...["-serial", "stdio", "-drive", disk, "-device", exit],
  ];
  const options = { timeout: HANG_MS, killSignal: "SIGKILL" } as const;
  const ended = promisify(execFile)("qemu-system-x86_64", words, options);
  // The device that ends it sets an exit status other than 0.
  return await ended.then(
    ({ stdout }) => stdout,
    (error: { code: unknown; stdout: string; stderr: string }) => {
      assert.is(error.code, 1, error.stderr);
      return error.stdout;
    },
  );
}

test("QEMU boots the full file and each overlay, and each prints the device's content at its time", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, bootSector());
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  const points: { path: string; text: string }[] = [];
  for (const text of ["as it was first", "after a change"]) {
    const sector = Buffer.alloc(SECTOR_BYTES);
    sector.write(text);
    machine.write(TEXT_SECTOR * SECTOR_BYTES, sector);
    const folder = machine.path("chain");
    const { path } = await exportQcow2({ ...own, wanted: { kind: "auto" }, folder });
    points.push({ path, text });
  }
  for (const { path, text } of points) assert.is(await saidBy(path), text);
  machine.remove();
});

test.run();
