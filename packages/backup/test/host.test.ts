/** Hosts with the same name that share a store. */
import { randomBytes, randomUUID } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { keptPoints } from "../dist/care.js";
import { exportRaw } from "../dist/export-raw.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { chainKeys, hostOf, isHostNamed, isSameHost, publicMachineId } from "../dist/host.js";
import { planExport } from "../dist/plan.js";
import { findPoint } from "../dist/points.js";
import { restore } from "../dist/restore.js";
import type { BackupClient, TakenSnapshot } from "../dist/snapshot.js";
import { BackupStore } from "../dist/store.js";
import { assertSame, FakeMachine, failureOf, MIB, NOW_MS } from "./fake-machine.js";

const [ONE, OTHER] = ["1".repeat(32), "2".repeat(32)];

function optionsOf({ client, device }: FakeMachine, machineId: string): ExportOptions {
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB };
  return { ...own, host: "localhost", machineId, wanted: { kind: "auto" } };
}

test("a machine's id is shown as a hash, and an invalid one not at all", () => {
  const told = publicMachineId("0123456789abcdef0123456789abcdef");
  assert.match(told ?? "", /^[0-9a-f]{32}$/);
  assert.is.not(told, "0123456789abcdef0123456789abcdef");
  assert.is.not(told, publicMachineId("1123456789abcdef0123456789abcdef"));
  for (const none of ["", "uninitialized", "0123"]) assert.is(publicMachineId(none), undefined);
});

test("hosts are the same by name and machine, as far as both are known", () => {
  const [one, other] = [
    hostOf({ host: "a", machineId: ONE }),
    hostOf({ host: "a", machineId: OTHER }),
  ];
  assert.ok(isSameHost(one, one));
  assert.ok(!isSameHost(one, other));
  assert.ok(isSameHost(one, { host: "a" }));
  assert.ok(!isSameHost(one, { host: "b" }));
  assert.ok(isHostNamed(one, "a") && isHostNamed(one, "11111") && !isHostNamed(one, "222222"));
  assert.ok(!isHostNamed(one, "1"), "too short to be of one machine");
});

test("points without a machine's id are of the only machine of that name", () => {
  const at = (machine_id?: string): { host: string; device: string; machine_id?: string } => ({
    ...{ host: "a", device: "/dev/a" },
    ...(machine_id === undefined ? {} : { machine_id }),
  });
  const before = chainKeys([at(), at(ONE)]);
  assert.is(before(at()), before(at(ONE)));
  const both = chainKeys([at(), at(ONE), at(OTHER)]);
  assert.is(new Set([both(at()), both(at(ONE)), both(at(OTHER))]).size, 3);
});

test("two machines with the same name have separate chains in a store", async () => {
  const [one, other] = [new FakeMachine(8 * MIB), new FakeMachine(8 * MIB)];
  const store = await BackupStore.openOrCreate(one.path("store"));
  one.write(0, randomBytes(MIB));
  other.write(0, randomBytes(MIB));
  await exportToStore(store, optionsOf(one, ONE));
  const notes: string[] = [];
  const onNote = (text: string) => notes.push(text);
  await exportToStore(store, { ...optionsOf(other, OTHER), onNote });
  assert.match(
    notes.join(),
    "are of localhost (machine 11111111), and this is localhost (machine 2",
  );
  assert.match(notes.join(), "boot with systemd.machine_id=ID");
  notes.length = 0;
  one.write(MIB, randomBytes(MIB));
  const { kind } = await exportToStore(store, { ...optionsOf(one, ONE), onNote });
  assert.is(kind, "incremental", "the other's point is not a reason to begin anew");
  assert.equal(notes, []);
  const points = await store.points();
  assert.is(points.length, 3);
  const kept = keptPoints(points, { last: 1 }, NOW_MS);
  assert.is(kept.length, 2, "the newest one of each machine stays");
  const ambiguous = await failureOf((async () => findPoint(points, {}))());
  assert.is(ambiguous.code, "BACKUP_NOT_FOUND");
  assert.match(
    ambiguous.message,
    /localhost \(machine 11111111\), .*localhost \(machine 22222222\)/,
  );
  const point = findPoint(points, { host: OTHER.slice(0, 8) });
  assert.is(point.machine_id, OTHER);
  const target = other.path("restored.img");
  await restore({ store, point, target, isDelta: false });
  await assertSame(target, other.content);
});

test("a raw copy of one machine is not overwritten with that of another of its name", async () => {
  const [one, other] = [new FakeMachine(8 * MIB), new FakeMachine(8 * MIB)];
  one.write(0, randomBytes(MIB));
  const target = one.path("copy.img");
  await exportRaw({ ...optionsOf(one, ONE), target });
  const refused = await failureOf(exportRaw({ ...optionsOf(other, OTHER), target }));
  assert.is(refused.code, "TARGET_EXISTS");
  assert.match(refused.message, /of localhost \(machine 11111111\), and this is .*22222222\)/);
  const { hint } = refused as unknown as { hint: string };
  assert.match(
    hint,
    `remove ${target} and ${target}.blksnap.json, and boot with systemd.machine_id`,
  );
});

test("a newer point of a machine of that name, by a program that knew no machines, does not start a full export", async () => {
  const machine = new FakeMachine(8 * MIB);
  const store = await BackupStore.openOrCreate(machine.path("store"));
  await exportToStore(store, optionsOf(machine, ONE));
  const [own] = await store.points();
  const { machine_id: _, ...unknown } = own!;
  const newer = new Date(Date.parse(own!.taken_at) + 1000).toISOString();
  const others = { ...unknown, id: randomUUID(), generation_id: "another", taken_at: newer };
  const host = { host: "localhost", machine_id: ONE };
  const now = { device: machine.device, generationId: own!.generation_id, changesNumber: 2 };
  const taken = { ...now, capacityBytes: own!.capacity_bytes, takenAt: newer } as TakenSnapshot;
  const client = { async *changedExtents() {} } as unknown as BackupClient;
  const plan = await planExport(client, { kind: "auto" }, [own!, others], host, taken);
  assert.is(plan.kind === "incremental" && plan.base.id, own!.id);
});

test.run();
