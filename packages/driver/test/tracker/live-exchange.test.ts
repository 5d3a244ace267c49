/** Nodes whose exchange of tables was refused, and their marks. */
import { closeSync, existsSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ETIMEDOUT } from "@blksnap/errors";
import { LinuxBlockError } from "@blksnap/linux-block";
import { tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { codeOf, FRONT, NODE, world as newWorld } from "./live-world.js";

const RESUME = `resume ${NODE.number}`;
const notFollowed = async () => false;

function world() {
  const made = newWorld();
  const mark = join(made.state.path, `exchange-${NODE.number}`);
  return { ...made, mark, hasMark: () => existsSync(mark) };
}

/** Resolves when the condition holds; a test that waits in vain is ended from outside. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await sleep(1);
}

const recover = ({ live, tracker }: ReturnType<typeof world>, known = [tracker]) =>
  live.recover(known, () => true, notFollowed);

test("a node left suspended by a refused exchange is resumed, with retries until that succeeds", async () => {
  const { dm, live, tracker, hasMark, errors } = world();
  dm.leavesSuspended = true;
  let left = 3;
  const { resume } = dm;
  dm.resume = (number) => {
    dm.failing = left-- > 0 ? "resume" : "exchange";
    return resume(number);
  };
  dm.failing = "exchange";
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.ok(dm.isSuspended && hasMark());
  await until(() => !hasMark());
  assert.not(dm.isSuspended);
  assert.equal([dm.leadsTo, dm.waiting], ["disk", undefined]);
  const fatal = errors.filter((text) => text.startsWith("a node may stay suspended"));
  assert.is(fatal.length, 1);
  assert.is(dm.asked.filter((one) => one === RESUME).length, 4);
});

test("a mark whose program lives is kept, and its node is resumed after the program's end", async () => {
  const { dm, live, tracker, mark, hasMark } = world();
  const program = openSync(mark, "a");
  tryLockFile(program);
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  assert.not(dm.asked.includes("exchange"));
  // The node is suspended after the daemon has looked.
  dm.isSuspended = true;
  assert.ok(hasMark());
  dm.asked.length = 0;
  await sleep(10);
  assert.equal(dm.asked, []);
  closeSync(program);
  await until(() => !hasMark());
  assert.not(dm.isSuspended);
  assert.equal(dm.asked, ["drop", RESUME]);
  await live.splice(tracker);
  assert.is(dm.leadsTo, FRONT);
});

test("a table that an interrupted exchange has made inactive again is dropped", async () => {
  const { dm, live, tracker, mark, hasMark } = world();
  const program = openSync(mark, "a");
  tryLockFile(program);
  assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
  dm.waiting = FRONT;
  dm.asked.length = 0;
  closeSync(program);
  await until(() => !hasMark());
  assert.equal([dm.asked, dm.waiting, dm.leadsTo], [["drop"], undefined, "disk"]);
});

test("the next daemon resumes what an exchange has left, and removes the mark", async () => {
  for (const isKnown of [true, false]) {
    const one = world();
    writeFileSync(one.mark, "");
    one.dm.isSuspended = true;
    await recover(one, isKnown ? [one.tracker] : []);
    assert.equal(one.dm.asked, isKnown ? ["drop", RESUME] : [RESUME]);
    assert.not(one.hasMark() || one.dm.isSuspended);
  }
  const other = world();
  writeFileSync(other.mark, "");
  await recover(other);
  assert.equal([other.dm.asked, other.hasMark()], [[], false], "it was not suspended");
});

/** A daemon has found a node that an exchange has left suspended, and cannot resume it. */
async function suspended(): Promise<ReturnType<typeof world>> {
  const one = world();
  writeFileSync(one.mark, "");
  one.dm.isSuspended = true;
  one.dm.failing = "resume";
  await recover(one);
  return one;
}

test("a mark stays if the next daemon cannot resume the node either", async () => {
  const one = await suspended();
  assert.ok(one.hasMark());
  one.dm.failing = "";
  await until(() => !one.hasMark());
  assert.not(one.dm.isSuspended);
});

test("an orderly end waits for a suspended node, and names one that stays suspended", async () => {
  const one = await suspended();
  const [left, ...more] = await one.exchanges.end(0);
  assert.match(left ?? "", /^the node vg-data may stay suspended; its users wait.*runbook/);
  assert.equal([more, one.hasMark()], [[], true]);
  const ended = one.exchanges.end(2 ** 31);
  one.dm.failing = "";
  assert.equal(await ended, []);
  assert.not(one.hasMark() || one.dm.isSuspended);
  assert.equal(await world().exchanges.end(2 ** 31), [], "there is none");
});

test("a node that LVM has suspended since is resumed when LVM is done, another node never", async () => {
  const one = world();
  writeFileSync(one.mark, "");
  one.dm.isSuspended = true;
  one.dm.isHeldByLvm = true;
  await recover(one);
  assert.equal([one.dm.asked, one.hasMark()], [[], true]);
  one.dm.isSuspended = false;
  one.dm.isHeldByLvm = false;
  await until(() => !one.hasMark());
  assert.not(one.dm.asked.includes(RESUME), "LVM has resumed it");

  const another = world();
  writeFileSync(another.mark, "");
  another.dm.present = [{ ...NODE, name: "vg-other", uuid: "LVM-y" }];
  another.dm.isSuspended = true;
  await recover(another);
  assert.equal([another.dm.asked, another.hasMark()], [[], false]);
});

test("a node that another program suspends before the exchange stays suspended", async () => {
  for (const what of ["splice", "return"]) {
    const { dm, live, tracker, hasMark } = world();
    if (what === "return") await live.splice(tracker);
    const before = dm.leadsTo;
    dm.asked.length = 0;
    dm.onLoad = () => {
      dm.isSuspended = true;
    };
    const work = what === "splice" ? live.splice(tracker) : live.takeOut(tracker);
    assert.is(await codeOf(work), "SPLICE_FAILED");
    assert.ok(dm.isSuspended);
    assert.not(dm.asked.includes("exchange") || dm.asked.includes(RESUME) || hasMark());
    assert.equal([dm.leadsTo, dm.waiting], [before, undefined]);
  }
});

test("a node that another program suspends while its exchange is about to begin stays suspended", async () => {
  for (const what of ["splice", "return"]) {
    const { dm, live, tracker, hasMark } = world();
    if (what === "return") await live.splice(tracker);
    const before = dm.leadsTo;
    dm.exchange = async () => {
      dm.isSuspended = true;
      throw new LinuxBlockError("EXCHANGE_NOT_BEGUN", "another program has suspended it");
    };
    const work = what === "splice" ? live.splice(tracker) : live.takeOut(tracker);
    assert.is(await codeOf(work), "SPLICE_FAILED");
    assert.equal([dm.isSuspended, dm.asked.includes(RESUME), hasMark()], [true, false, false]);
    assert.equal([dm.leadsTo, dm.waiting], [before, undefined], "what was to be live is dropped");
  }
});

test("a node that another program suspends after an exchange stays suspended", async () => {
  const { dm, live, tracker, hasMark } = world();
  const { exchange } = dm;
  dm.exchange = () => exchange().finally(() => (dm.isSuspended = true));
  await live.splice(tracker);
  assert.equal([hasMark(), dm.isSuspended, dm.asked.includes(RESUME)], [false, true, false]);
});

test("an attach is refused if the last sync is late or fails, a detach continues", async () => {
  const late = () => [-ETIMEDOUT];
  const broken = () => {
    throw new Error("no process can be started");
  };
  for (const sync of [late, broken]) {
    const { dm, live, tracker } = world();
    const { onSync } = dm;
    dm.onLoad = () => {
      dm.onSync = sync;
    };
    assert.is(await codeOf(live.splice(tracker)), "SPLICE_FAILED");
    assert.equal([dm.leadsTo, dm.asked.includes("exchange")], ["disk", false]);
    dm.onSync = onSync;
    dm.onLoad = () => undefined;
    await live.splice(tracker);
    dm.onLoad = () => {
      dm.onSync = sync;
    };
    await live.takeOut(tracker);
    assert.is(dm.leadsTo, "disk");
  }
});

test.run();
