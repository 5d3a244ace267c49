/**
 * From seeds: SEED=N replays one. A map never continues after a write that it misses, and always continues where
 * docs/persistence.md promises it.
 */

import { judgeContinuity, type PersistedIdentity } from "@blksnap/linux-block";
import { Dice } from "@blksnap/testing";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Judge, Plants, Setting } from "./setting.js";
import { World } from "./world.js";

const test = suite("continuity simulation");
const SEEDS = 120;
const PLANT_SEEDS = 600;
const TURNS = 120;
const TOLD = 24;

function settingOf(seed: number): Setting {
  const dice = new Dice(seed ^ 0x5eed);
  return {
    contents: dice.pick(["raw", "partitioned", "ext4", "xfs", "btrfs", "ext4 under md"]),
    kind: dice.pick(["disk", "disk", "disk", "nameless disk", "uncounted disk", "image file"]),
    counter: dice.pick(["tpm", "efi", "stuck", "none"]),
    trustReboots: dice.below(4) === 0,
  };
}

async function runSeed(seed: number, plants?: Plants, given?: Partial<Setting>) {
  const setting = { ...settingOf(seed), ...given };
  const world = new World(new Dice(seed), setting, plants);
  for (let turn = 0; turn < TURNS; turn++) {
    const problem = await world.turn();
    if (problem === undefined) continue;
    const history = world.history.slice(-TOLD).join("\n  ");
    const told = `SEED=${seed}, turn ${turn}: ${problem}\n  ${JSON.stringify(setting)}\n  ${history}`;
    return { world, problem: told };
  }
  return { world, problem: undefined };
}

const given = process.env["SEED"];
const seeds = /^\d+$/.test(given ?? "")
  ? [Number(given)]
  : Array.from({ length: SEEDS }, (_, index) => index + 1);

test(`no map continues after a write that it misses, from ${seeds.length} seeds`, async () => {
  const seen = { continued: 0, cut: 0, foreignFound: 0, promised: 0 };
  for (const seed of seeds) {
    const { world, problem } = await runSeed(seed);
    assert.is(problem, undefined, problem);
    seen.continued += world.seen.continued;
    seen.cut += world.seen.cut;
    seen.foreignFound += world.seen.foreignFound;
    seen.promised += world.seen.promised;
  }
  // A behaviour that did not occur was not tested.
  if (seeds.length < SEEDS) return;
  for (const [what, count] of Object.entries(seen))
    assert.ok(count > SEEDS / 2, `${what}: ${count}`);
});

/** Judges by altered facts. */
function by(
  change: (before: Parameters<Judge>[0], now: PersistedIdentity) => Parameters<Judge>,
): Judge {
  return (before, now, options) => {
    const [changedBefore, changedNow] = change(before, now);
    return judgeContinuity(changedBefore, changedNow, options);
  };
}

function counted<Facts extends PersistedIdentity>(facts: Facts): Facts {
  const { witness } = facts;
  const { writeSectors, discardSectors } = witness;
  const known = { writeSectors: writeSectors ?? 0, discardSectors: discardSectors ?? 0 };
  return { ...facts, witness: { ...witness, ...known } };
}

function proven<Facts extends PersistedIdentity>(facts: Facts, token: string | null): Facts {
  const { content } = facts;
  const proof = { unmounted: token, session: content.proof?.session ?? null };
  return { ...facts, content: { ...content, proof } };
}

function inSession<Facts extends PersistedIdentity>(facts: Facts, session: string | null): Facts {
  const { content } = facts;
  const proof = { unmounted: content.proof?.unmounted ?? null, session };
  return { ...facts, content: { ...content, proof } };
}

function atStart<Facts extends PersistedIdentity>(facts: Facts): Facts {
  return { ...facts, identity: { ...facts.identity, startBytes: 0 } };
}

/** A fault, with the setting in which it can matter. */
type Planted = Plants & { readonly where: Partial<Setting> };

const RAW: Partial<Setting> = {
  contents: "raw",
  kind: "disk",
  counter: "tpm",
  trustReboots: false,
};

const PLANTS: Readonly<Record<string, Planted>> = {
  "what is not counted counts as zero": {
    where: { ...RAW, kind: "uncounted disk" },
    judge: by((before, now) => [counted(before), counted(now)]),
  },
  "the edges of a device prove all of it": {
    where: RAW,
    judge: by((before, now) => [
      proven(before, before.content.digest),
      proven(now, now.content.digest),
    ]),
  },
  "the log ahead of the head is not looked at": {
    where: { ...RAW, contents: "xfs", kind: "uncounted disk" },
    judge: by((before, now) => {
      const short = (token: string | null | undefined) =>
        token?.replace(/^(xfs .*) [0-9a-f]{64}$/, "$1") ?? null;
      return [
        proven(before, short(before.content.proof?.unmounted)),
        proven(now, short(now.content.proof?.unmounted)),
      ];
    }),
  },
  "mounts are not counted": {
    where: { ...RAW, contents: "ext4" },
    judge: by((before, now) => {
      const less = (token: string | null | undefined) =>
        token?.replace(/"mounts":.*?"checkedAt"/, "").replace(/"needsRecovery".*/, "") ?? null;
      return [
        inSession(before, less(before.content.proof?.session)),
        inSession(now, less(now.content.proof?.session)),
      ];
    }),
  },
  "a stop counts as the end of the boot": {
    where: RAW,
    judge: by((before, now) => [{ ...before, closing: true }, now]),
  },
  "boots without the daemon are not counted": {
    where: RAW,
    judge: by((before, now) => {
      const boot = now.boot && {
        ...now.boot,
        counters: {
          tpmResets: (before.boot?.counters.tpmResets ?? 0) + 1,
          firmwareBoots: null,
          isFirst: true,
        },
      };
      const was = before.boot && {
        ...before.boot,
        counters: {
          ...before.boot.counters,
          tpmResets: before.boot.counters.tpmResets ?? 0,
          firmwareBoots: null,
        },
      };
      return [
        { ...before, ...(was === undefined ? {} : { boot: was }) },
        { ...now, ...(boot === undefined ? {} : { boot }) },
      ];
    }),
  },
  "a kernel that another one has started counts as started by the firmware": {
    where: RAW,
    judge: by((before, now) => {
      const boot = now.boot && {
        ...now.boot,
        counters: { ...now.boot.counters, isFirst: true },
      };
      return [before, { ...now, ...(boot === undefined ? {} : { boot }) }];
    }),
  },
  "a loaded kexec kernel does not matter": { where: RAW, ignoresKexec: true },
  "a boot that the chain does not have": {
    where: { ...RAW, trustReboots: true },
    judge: by((before, now) => {
      const boot = now.boot && { ...now.boot, previousBootId: before.witness.bootId };
      return [before, { ...now, ...(boot === undefined ? {} : { boot }) }];
    }),
  },
  "one that was away counts as the same incarnation": {
    where: RAW,
    judge: by((before, now) => {
      const { diskseq } = before.witness;
      return [before, { ...now, witness: { ...now.witness, diskseq } }];
    }),
  },
  "one that was away in this boot counts as there from its start": {
    where: RAW,
    judge: by((before, now) => [
      before,
      { ...now, witness: { ...now.witness, isFirstAppearance: true } },
    ]),
  },
  "what ran while the system slept counts for nothing": {
    where: RAW,
    judge: by((before, now) => [
      { ...before, witness: { ...before.witness, sleptMs: 0 } },
      { ...now, witness: { ...now.witness, sleptMs: 0 } },
    ]),
  },
  "where on its disk a device begins does not matter": {
    where: RAW,
    judge: by((before, now) => [atStart(before), atStart(now)]),
  },
  "a disk cannot be in another machine while this one is off": {
    where: { ...RAW, contents: "ext4" },
    judge: by((before, now) => [before, { ...now, content: before.content }]),
  },
  "a file's times outlive a power cut": {
    where: { ...RAW, kind: "image file" },
    judge: by((before, now) => [
      { ...before, witness: { ...before.witness, bootId: now.witness.bootId } },
      now,
    ]),
  },
  "a soft reboot counts as the end of the boot": { where: RAW, ignoresSoftReboot: true },
  "after a crash, counters of the next boot are enough": {
    where: RAW,
    judge: (before, now, options) =>
      judgeContinuity(before, now, { ...options, trustReboots: true }),
  },
};

for (const [plant, { where, ...plants }] of Object.entries(PLANTS)) {
  test(`the judge finds: ${plant}`, async () => {
    for (let seed = 1; seed <= PLANT_SEEDS; seed++) {
      if ((await runSeed(seed, plants, where)).problem !== undefined) return;
    }
    assert.unreachable(`not found in ${PLANT_SEEDS} seeds`);
  });
}

test.run();
