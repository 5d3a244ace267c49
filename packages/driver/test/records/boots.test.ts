/** The chain of boots. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { chainBoot } from "../../dist/records/boot-chain.js";
import { patientDirectory } from "../support/patient-directory.js";
import { refusal } from "../support/persistence-world.js";

interface Context {
  root: string;
}

const test = suite<Context>("boots");
const NONE = { tpmResets: null, firmwareBoots: null, isFirst: false };

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "blksnap-boots-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

function memory(text = "") {
  return {
    text,
    read: async function () {
      return this.text;
    },
    write: async function (written: string) {
      this.text = written;
    },
  };
}

test("each boot knows the previous one, however often it is asked", async () => {
  const lock = memory();
  const boot = (id: string) =>
    chainBoot(
      lock,
      async () => id,
      async () => NONE,
    );
  assert.is((await boot("b-1")).previousBootId, null);
  assert.is((await boot("b-1")).previousBootId, null);
  assert.is((await boot("b-2")).previousBootId, "b-1");
  assert.is((await boot("b-2")).previousBootId, "b-1");
  assert.is((await boot("b-3")).previousBootId, "b-2");
  lock.text = lock.text.slice(0, -3);
  assert.is((await boot("b-4")).previousBootId, null, "torn");
  assert.is((await boot("b-5")).previousBootId, "b-4");
});

test("a chain that cannot be written is broken", async () => {
  const lock = memory();
  const none = async () => NONE;
  await chainBoot(lock, async () => "b-1", none);
  const full = {
    read: async () => lock.text,
    write: () => Promise.reject(new Error("ENOSPC")),
  };
  assert.is((await chainBoot(full, async () => "b-2", none)).previousBootId, null);
});

test("the chain is in the lock file of the directory, which stays locked", async ({ root }) => {
  const path = join(root, "state");
  const directory = patientDirectory(path);
  assert.is((await directory.boot()).previousBootId, null, "not owned");
  await directory.own();
  await directory.boot();
  const other = patientDirectory(path);
  assert.match((await refusal(other.own())).message, /another blksnapd/);
  directory.close();
  await other.own();
  const found = await other.boot();
  assert.is(found.previousBootId, null, "the same boot is not before itself");
  other.close();
});

test.run();
