/** The machine's own counters of its boots, and their ends. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isEndOfBoot, isGoingDown } from "@blksnap/linux-block";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type CounterSources, readBootCounters } from "../../dist/continuity/boot-counters.js";

interface Context {
  root: string;
  sources: CounterSources;
}

const test = suite<Context>("boot counters");
const NONE = { tpmResets: null, firmwareBoots: null, isFirst: false };
const GRUB = 0x72;

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "blksnap-boots-"));
  const { root } = context;
  context.sources = { proc: root, efiVariables: root, tpm: join(root, "tpm") };
  mkdirSync(join(root, "sys/kernel"), { recursive: true });
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

function loader({ root }: Context, type: number): void {
  writeFileSync(join(root, "sys/kernel/bootloader_type"), `${type}\n`);
}

/** A TPM's response follows the command, which precedes it in a regular file. */
function tpm({ root }: Context, resets: number, restarts: number, code = 0): void {
  const answer = Buffer.alloc(35);
  answer.writeUInt16BE(0x8001, 0);
  answer.writeUInt32BE(35, 2);
  answer.writeUInt32BE(code, 6);
  answer.writeBigUInt64BE(123_456n, 10);
  answer.writeBigUInt64BE(9_876_543n, 18);
  answer.writeUInt32BE(resets, 26);
  answer.writeUInt32BE(restarts, 30);
  answer.writeUInt8(1, 34);
  writeFileSync(join(root, "tpm"), Buffer.concat([Buffer.alloc(10), answer]));
}

function efi({ root }: Context, count: number): void {
  const variable = Buffer.alloc(8);
  variable.writeUInt32LE(7, 0);
  variable.writeUInt32LE(count, 4);
  writeFileSync(join(root, "MTC-eb704011-1402-11d3-8e77-00a0c969723b"), variable);
}

test("absent counters count nothing", async ({ sources }) => {
  assert.equal(await readBootCounters(sources), NONE);
});

test("a TPM's resets and the firmware's boots", async (context) => {
  loader(context, GRUB);
  tpm(context, 1042, 0);
  efi(context, 17);
  const counters = { tpmResets: 1042, firmwareBoots: 17, isFirst: true };
  assert.equal(await readBootCounters(context.sources), counters);
  // It slept, and the reset count does not cover what ran meanwhile.
  tpm(context, 1042, 1);
  assert.is((await readBootCounters(context.sources)).isFirst, false);
  tpm(context, 1042, 0, 0x100);
  assert.is((await readBootCounters(context.sources)).tpmResets, null);
});

test("a kernel started by kexec, or in an unknown way, is not the first of its boot", async (context) => {
  efi(context, 17);
  for (const [type, isFirst] of [
    [GRUB, true],
    [0x21, true],
    [0xb0, true],
    [0xd0, false],
    [0xff, false],
  ] as const) {
    loader(context, type);
    assert.is((await readBootCounters(context.sources)).isFirst, isFirst, `type ${type}`);
  }
});

test("the end of a boot: systemd shuts the system down, and no other kernel is loaded", async () => {
  const REBOOT = "12 reboot.target start waiting\n13 umount.target start waiting\n";
  const ends = (state: string, kexec: string | undefined, jobs = REBOOT, isContainer = false) =>
    isEndOfBoot({
      systemState: async () => state,
      jobs: async () => jobs,
      isContainer: () => isContainer,
      firstProcess: async () => ["/sbin/init", ""],
      kexecLoaded: async () => kexec,
    });
  assert.is(await ends("stopping\n", "0\n"), true);
  assert.is(await ends("stopping\n", undefined), true);
  assert.is(await ends("stopping\n", "1\n"), false);
  for (const state of ["running\n", "degraded\n", "offline\n", ""]) {
    assert.is(await ends(state, "0\n"), false, state);
  }
  assert.is(await ends("stopping\n", "0\n", "9 poweroff.target start waiting"), true);
  assert.is(await ends("stopping\n", "0\n", "9 halt.target start waiting"), true);
  assert.is(await ends("stopping\n", "0\n", "9 soft-reboot.target start waiting"), false);
  assert.is(await ends("stopping\n", "0\n", `${REBOOT}9 soft-reboot.target start waiting`), false);
  assert.is(await ends("stopping\n", "0\n", "9 kexec.target start waiting"), false);
  assert.is(await ends("stopping\n", "0\n", ""), false);
  assert.is(await ends("stopping\n", "0\n", REBOOT, true), false, "its host continues");
  const fails = {
    systemState: async () => "stopping",
    jobs: async () => REBOOT,
    isContainer: () => false,
    firstProcess: async () => ["/sbin/init", ""],
    kexecLoaded: () => Promise.reject(new Error()),
  };
  assert.is(await isEndOfBoot(fails), false);
});

test("when all units have stopped, the command line of process 1 names the next step", async () => {
  const probe = (program: string, verb: string, kexec = "0\n") => ({
    systemState: async () => "",
    jobs: async () => "",
    isContainer: () => false,
    firstProcess: async () => [program, verb, "--timeout", "90000000us", ""],
    kexecLoaded: async () => kexec,
  });
  const LAST = "/usr/lib/systemd/systemd-shutdown";
  for (const verb of ["poweroff", "reboot", "halt"]) {
    assert.is(await isGoingDown(probe(LAST, verb)), true);
    assert.is(await isEndOfBoot(probe(LAST, verb)), true, verb);
  }
  for (const verb of ["kexec", "exit", ""]) {
    assert.is(await isGoingDown(probe(LAST, verb)), true);
    assert.is(await isEndOfBoot(probe(LAST, verb)), false, verb);
  }
  assert.is(await isEndOfBoot(probe(LAST, "reboot", "1\n")), false);
  assert.is(await isGoingDown(probe("/usr/lib/systemd/systemd", "reboot")), false);
});

test.run();
