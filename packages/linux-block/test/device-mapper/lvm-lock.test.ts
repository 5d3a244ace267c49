import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryFlock } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { volumeGroupOf, withGroupLock } from "../../dist/device-mapper/lvm-lock.js";

const NODE = { name: "my--group-data", uuid: "LVM-x" };

/** A program of LVM that holds a lock; returns a function that ends it. */
async function locked(path: string): Promise<() => Promise<void>> {
  const holder = spawn("flock", [path, "sh", "-c", "echo held; read -r _"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(holder, "exit");
  await once(holder.stdout, "data");
  return async () => {
    holder.stdin.end();
    await ended;
  };
}

test("the group is in the name of a logical volume", () => {
  const of = (name: string) => volumeGroupOf({ name, uuid: "LVM-x" });
  assert.is(of("vg-data"), "vg");
  assert.is(of("my--group-data--1"), "my-group");
  assert.is(of("a----b-c-real"), "a--b");
  assert.is(of("none"), undefined);
  assert.is(volumeGroupOf({ name: "vg-data", uuid: "CRYPT-x" }), undefined);
});

test("the lock waits for LVM's change of the group, but not forever", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lvm-"));
  const release = await locked(join(folder, "V_my-group"));
  let works = 0;
  const work = async () => ++works;
  const failure = await withGroupLock(NODE, tryFlock, work, { folder, waitMs: 0 }).then(
    () => assert.unreachable("it is held"),
    (error) => error,
  );
  assert.is(failure.code, "DEVICE_MAPPER_FAILED");
  assert.match(failure.message, /LVM changes the volume group my-group/);
  assert.is(works, 0);
  const waiting = withGroupLock(NODE, tryFlock, work, { folder, waitMs: 600_000 });
  await release();
  assert.is(await waiting, 1);
  rmSync(folder, { recursive: true });
});

test("LVM waits while the node is changed, even if it has removed the lock's file", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lvm-"));
  const path = join(folder, "V_my-group");
  let hasLock = false;
  let next: Promise<() => Promise<void>> | undefined;
  const releaseFirst = await locked(path);
  const waiting = withGroupLock(NODE, tryFlock, work, { folder, waitMs: 600_000 });
  // Programs of LVM end like this.
  rmSync(path);
  await releaseFirst();
  async function work() {
    assert.ok(existsSync(path), "what it has locked is what others lock");
    next = locked(path);
    void next.then(() => {
      hasLock = true;
    });
    const busy = spawn("flock", ["-n", path, "true"]);
    assert.equal(await once(busy, "exit"), [1, null]);
    assert.not(hasLock);
  }
  await waiting;
  await (await next)?.();
  rmSync(folder, { recursive: true });
});

test("nodes of one group wait for each other, however long, and one that gives up delays none", async () => {
  const folder = mkdtempSync(join(tmpdir(), "lvm-"));
  const done: string[] = [];
  let begin = (): void => undefined;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  let end = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    end = resolve;
  });
  const options = { folder, waitMs: 600_000 };
  const first = withGroupLock(
    NODE,
    tryFlock,
    async () => {
      begin();
      await held;
      done.push("first");
    },
    options,
  );
  await begun;
  const soon = { ...options, waitMs: 0, turnMs: 1 };
  const late = withGroupLock(NODE, tryFlock, async () => done.push("late"), soon);
  const next = withGroupLock(NODE, tryFlock, async () => done.push("next"), options);
  const failure = await late.then(
    () => assert.unreachable("the first is not done"),
    (error) => error,
  );
  assert.match(failure.message, /other nodes of the volume group my-group/);
  const other = { ...NODE, name: "other-data" };
  await withGroupLock(other, tryFlock, async () => done.push("another group"), options);
  end();
  await Promise.all([first, next]);
  assert.equal(done, ["another group", "first", "next"]);
  rmSync(folder, { recursive: true });
});

test("a node that is no logical volume needs no lock", async () => {
  const work = async () => "done";
  assert.is(
    await withGroupLock({ name: "a-b", uuid: "" }, tryFlock, work, { folder: "/" }),
    "done",
  );
  assert.is(await withGroupLock(NODE, tryFlock, work, { folder: "/nonexistent" }), "done");
});

test.run();
