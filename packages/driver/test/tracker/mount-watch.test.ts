import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { MountWatch } from "../../dist/tracker/mount-watch.js";

interface Context {
  sysfs: string;
  told: string[];
  reads: number[];
}

const test = suite<Context>("mount watch");
const NEVER_MS = 2 ** 30;

test.before.each((context) => {
  context.sysfs = mkdtempSync(join(tmpdir(), "blksnap-watch-"));
  context.told = [];
  context.reads = [];
});
test.after.each(({ sysfs }) => rmSync(sysfs, { recursive: true }));

function written({ sysfs }: Context, id: number, sectors: number): void {
  mkdirSync(join(sysfs, `block/ublkb${id}`), { recursive: true });
  writeFileSync(
    join(sysfs, `block/ublkb${id}/stat`),
    `101 102 103 104 105 106 ${sectors} 108 0 110 111\n`,
  );
}

function tracker({ told }: Context, id: number, persistent = true) {
  const uuid = persistent ? `uuid-${id}` : undefined;
  const noteStart = async (start: Uint8Array) => void told.push(`${id}:${start[0]}`);
  return { id, uuid, noteStart, front: { path: `/dev/ublkb${id}` }, backing: { fd: 100 + id } };
}

function watch(
  context: Context,
  trackers: () => Iterable<ReturnType<typeof tracker>>,
  read: (fd: number) => Promise<Uint8Array | undefined>,
): MountWatch {
  const counted = (fd: number) => {
    context.reads.push(fd);
    return read(fd);
  };
  return new MountWatch(trackers, counted, { sysfs: context.sysfs, intervalMs: NEVER_MS });
}

test("only fronts that were written are read again", async (context) => {
  const trackers = [tracker(context, 1), tracker(context, 2, false)];
  written(context, 1, 8);
  written(context, 2, 8);
  const one = watch(
    context,
    () => trackers,
    async () => Uint8Array.of(7),
  );
  await one.look();
  await one.look();
  assert.equal(context.told, ["1:7"]);
  written(context, 1, 16);
  await one.look();
  assert.equal(context.reads, [101, 101]);
  one.stop();
});

test("a front that hangs delays no other and is read once; one that fails is read again", async (context) => {
  const trackers = [1, 2, 3].map((id) => tracker(context, id));
  for (const { id } of trackers) written(context, id, 8);
  let release: (start: Uint8Array) => void = () => undefined;
  const hung = new Promise<Uint8Array>((resolve) => {
    release = resolve;
  });
  const one = watch(
    context,
    () => trackers,
    async (fd) => {
      if (fd === 101) return hung;
      if (fd === 102) throw new Error("the ring is closed");
      return Uint8Array.of(1);
    },
  );
  const first = one.look();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(context.told, ["3:1"]);
  await one.look();
  assert.equal(context.reads, [101, 102, 103, 102]);
  release(Uint8Array.of(9));
  await first;
  assert.equal(context.told, ["3:1", "1:9"]);
  one.stop();
});

test("after a number was given to another tracker, it is read again", async (context) => {
  let trackers = [tracker(context, 1)];
  written(context, 1, 8);
  const one = watch(
    context,
    () => trackers,
    async () => Uint8Array.of(7),
  );
  await one.look();
  trackers = [];
  await one.look();
  trackers = [tracker(context, 1)];
  await one.look();
  assert.is(context.told.length, 2);
  one.stop();
});

test.run();
