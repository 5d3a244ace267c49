import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  readBlockWriteCounters,
  readOwnWriteCounters,
  readWriteCounters,
} from "../../dist/continuity/write-counters.js";
import { BOOT_ID, FakeKernel, statText } from "./fake-kernel.js";

const test = suite("write-counters");
const DISK = "pci0/virtio1/block/vda";
let kernel: FakeKernel;

test.before.each(() => {
  kernel = new FakeKernel();
  kernel.device("254:0", DISK, {
    diskseq: "7",
    stat: statText(5000, 900),
    "queue/iostats": "1",
  });
});

test.after.each(() => kernel.remove());

function partition(number: string, name: string, partno: string, stat: string): void {
  kernel.device(number, `${DISK}/${name}`, { partition: partno, stat });
}

function countersOf(number: string) {
  return readBlockWriteCounters(number, kernel.sysfs, kernel.proc);
}

test("a disk has its incarnation, and counts of written and discarded sectors", async () => {
  assert.equal(await countersOf("254:0"), {
    bootId: BOOT_ID,
    diskseq: "7",
    isFirstAppearance: false,
    sleptMs: null,
    writeSectors: 5000,
    discardSectors: 900,
    mtimeNs: null,
    ctimeNs: null,
  });
});

test("a partition's own counters exclude writes through the disk's node", async () => {
  partition("254:1", "vda1", "1", statText(300, 20));
  const own = () => readOwnWriteCounters("254:1", kernel.sysfs, kernel.proc);
  const counted = { bootId: BOOT_ID, diskseq: "7", writeSectors: 300, discardSectors: 20 };
  assert.equal(await own(), counted);
  kernel.set(DISK, "stat", statText(6000, 950));
  assert.equal(await own(), counted);
  kernel.set(DISK, "queue/iostats", "0");
  assert.equal(await own(), { ...counted, writeSectors: null, discardSectors: null });
});

test("the sleep of a boot is the difference of two clocks", async () => {
  const slept = async () => (await countersOf("254:0")).sleptMs ?? Number.NaN;
  const awakeSeconds = Number(process.hrtime.bigint() / 1_000_000n) / 1000;
  const uptime = (seconds: number) =>
    writeFileSync(join(kernel.proc, "uptime"), `${seconds.toFixed(2)} 1.00\n`);
  uptime(awakeSeconds + 3_600);
  const before = await slept();
  uptime(awakeSeconds + 7_200);
  assert.ok(Math.abs((await slept()) - before - 3_600_000) < 600_000);
  // This machine's own value: known and constant.
  const real = async () => (await readBlockWriteCounters("254:0", kernel.sysfs, "/proc")).sleptMs;
  assert.type(await real(), "number");
});

test("a disk was never away if no earlier disk of this boot has gone", async () => {
  const folder = (name: string) => join(kernel.sysfs, "block", name);
  const isFirst = async () => (await countersOf("254:0")).isFirstAppearance;
  for (let number = 1; number <= 6; number++) {
    assert.is(await isFirst(), false, `without ${number}`);
    mkdirSync(folder(`d${number}`), { recursive: true });
    writeFileSync(join(folder(`d${number}`), "diskseq"), `${number}\n`);
  }
  assert.is(await isFirst(), true);

  rmSync(folder("d4"), { recursive: true });
  assert.is(await isFirst(), false);
});

test("a partition has its disk's incarnation, and its own writes plus those through the disk", async () => {
  partition("254:1", "vda1", "1", statText(3000, 300));
  partition("254:2", "vda2", "2", statText(1500, 500));
  // 500 and 100 were written through /dev/vda itself.
  const { diskseq, writeSectors, discardSectors } = await countersOf("254:1");
  assert.equal([diskseq, writeSectors, discardSectors], ["7", 3500, 400]);
});

test("writes to a neighbour do not move a partition's counters; those through the disk do", async () => {
  partition("254:1", "vda1", "1", statText(3000, 300));
  partition("254:2", "vda2", "2", statText(1500, 500));
  const before = await countersOf("254:1");
  kernel.set(`${DISK}/vda2`, "stat", statText(1600, 500));
  kernel.set(DISK, "stat", statText(5100, 900));
  assert.equal(await countersOf("254:1"), before);
  kernel.set(DISK, "stat", statText(5108, 900));
  assert.is((await countersOf("254:1")).writeSectors, 3508);
});

test("recreated partitions do not restore earlier counts", async () => {
  partition("254:1", "vda1", "1", statText(3000, 300));
  kernel.set(`${DISK}/vda1`, "stat", statText(0, 0));
  assert.is((await countersOf("254:1")).writeSectors, 5000);
});

test("counters that never move count as unknown", async () => {
  kernel.set(DISK, "queue/iostats", "0");
  const { writeSectors, discardSectors, diskseq } = await countersOf("254:0");
  assert.equal([writeSectors, discardSectors, diskseq], [null, null, "7"]);
  partition("254:1", "vda1", "1", statText(1, 1));
  assert.is((await countersOf("254:1")).writeSectors, null);
});

test("an older kernel counts no discards and has no diskseq", async () => {
  kernel.set(DISK, "stat", "1 2 3 4 5 6 5000 8 9 10 11");
  kernel.unset(DISK, "diskseq");
  const { writeSectors, discardSectors, diskseq } = await countersOf("254:0");
  assert.equal([writeSectors, discardSectors, diskseq], [5000, null, null]);
});

test("values that sysfs lacks, or formats differently, are unknown", async () => {
  for (const stat of ["", "garbage", "1 2 3 4 5 6 -7 8 9 10 11 12 13 x"]) {
    kernel.set(DISK, "stat", stat);
    const { writeSectors, discardSectors } = await countersOf("254:0");
    assert.equal([writeSectors, discardSectors], [null, null], JSON.stringify(stat));
  }
  const { writeSectors, diskseq, bootId } = await countersOf("8:0");
  assert.equal([writeSectors, diskseq, bootId], [null, null, BOOT_ID]);
});

test("writes to a regular file show in its times, to the nanosecond", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-counters-"));
  try {
    const file = join(folder, "image");
    writeFileSync(file, "x");
    const before = await readWriteCounters(file, kernel.sysfs, kernel.proc);
    const { mtimeNs, ctimeNs } = statSync(file, { bigint: true });
    assert.equal(before, {
      bootId: BOOT_ID,
      diskseq: null,
      writeSectors: null,
      discardSectors: null,
      sleptMs: null,
      mtimeNs: String(mtimeNs),
      ctimeNs: String(ctimeNs),
    });
    utimesSync(file, 1, 1);
    const after = await readWriteCounters(file, kernel.sysfs, kernel.proc);
    assert.is(after.mtimeNs, "1000000000");
    assert.is.not(after.ctimeNs, before.ctimeNs);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a path that leads nowhere is refused with a named error", async () => {
  try {
    await readWriteCounters("/dev/no-such-device", kernel.sysfs, kernel.proc);
    assert.unreachable("it was accepted");
  } catch (error) {
    assert.is((error as { code?: string }).code, "DEVICE_NOT_FOUND");
  }
});

const node = readdirSync("/dev")
  .map((name) => join("/dev", name))
  .find((path) => statSync(path, { throwIfNoEntry: false })?.isBlockDevice());

if (node === undefined) {
  console.error("SKIPPED: no block device in /dev to read a real sysfs with");
  test.skip("a device of this machine");
} else {
  test(`a device of this machine: ${node}`, async () => {
    const { bootId, diskseq, writeSectors, mtimeNs } = await readWriteCounters(node);
    assert.is(bootId, readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
    assert.match(diskseq ?? "", /^\d+$/);
    assert.ok(writeSectors === null || writeSectors >= 0);
    assert.is(mtimeNs, null);
  });
}

test.run();
