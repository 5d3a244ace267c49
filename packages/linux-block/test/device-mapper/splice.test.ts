import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { apartProgram, LockedHelper, tryFlock } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DeviceMapper, LinuxBlockError, type RunDmsetup, runDmsetup } from "../../dist/index.js";

const LAYER = "259:0";
const PROGRAM = "exchange-program";

/** A device mapper with its own sysfs, and the calls that it received. */
class World {
  readonly folder = mkdtempSync(join(tmpdir(), "splice-"));
  readonly asked: string[] = [];
  readonly live = new Map<string, string>();
  readonly waiting = new Map<string, string>();
  failing = "";

  add(number: string, name: string, uuid: string, table: string, suspended = "0"): void {
    const sectors = table === "" ? 0 : 1000;
    for (const folder of [`dev/block/${number}`, `block/dm-${number.split(":")[1]}`]) {
      const path = join(this.folder, folder);
      mkdirSync(join(path, "dm"), { recursive: true });
      const files = { dev: number, size: String(sectors), ro: "0" };
      const own = { "dm/name": name, "dm/uuid": uuid, "dm/suspended": suspended };
      for (const [file, text] of Object.entries({ ...files, ...own })) {
        writeFileSync(join(path, file), `${text}\n`);
      }
    }
    this.live.set(number, table);
  }

  readonly run: RunDmsetup = async (words, { input = "", program } = {}) => {
    const [verb = ""] = words;
    this.asked.push([...(program === undefined ? [] : [program]), ...words].join(" "));
    if (program !== undefined) return "1500\n";
    if (this.failing !== "" && words.includes(this.failing)) {
      throw new LinuxBlockError("DEVICE_MAPPER_FAILED", "refused");
    }
    const number = `${words.at(-3)}:${words.at(-1)}`;
    if (verb === "create") this.add("254:7", words[1] ?? "", words[3] ?? "", input);
    if (verb === "load") this.waiting.set(number, input);
    return "";
  };

  /** Responses of the separate process, like those of native/apart/mapper.cc. */
  readonly ask = async (words: readonly string[]): Promise<string[]> => {
    const [verb, major, minor, more = ""] = words;
    this.asked.push(words.slice(0, 3).join(" "));
    const number = `${major}:${minor}`;
    const waiting = this.waiting.get(number) ?? "";
    if (verb === "dm-table") {
      const table = more === "waiting" ? waiting : (this.live.get(number) ?? "");
      return ["0", ...(table === "" ? [] : table.split("\n"))];
    }
    if (verb === "dm-clear") {
      if (`${this.waiting.get(number)}\n` !== more) return ["-16"];
      this.waiting.delete(number);
    }
    return [verb === "dm-resume" && waiting !== "" ? "-16" : this.status];
  };
  status = "0";

  get mapper(): DeviceMapper {
    const ports = { program: PROGRAM, ask: this.ask, tryFlock: () => true };
    return new DeviceMapper(ports, this.run, this.folder);
  }

  node(number = "254:3") {
    const node = this.mapper.node(number);
    if (node === undefined) throw new Error(`no node ${number}`);
    return node;
  }
}

const NAMES = { name: "vg-data-blksnap", uuid: "blksnap-1-254:3" };

async function failureOf(work: Promise<unknown>): Promise<LinuxBlockError> {
  return work.then(
    () => assert.unreachable("it fails"),
    (error) => error,
  ) as Promise<LinuxBlockError>;
}

test("a clone has the table of its node, and a name and uuid of its own", async () => {
  const world = new World();
  const table = "0 600 linear 8:0 2048\n600 400 striped 2 8 8:0 0 8:16 0\n1000 8 thin 254:2 1";
  world.add("254:3", "vg-data", "LVM-x", table);
  const clone = await world.mapper.clone(world.node(), NAMES);
  assert.is(clone.number, "254:7");
  assert.is(world.live.get("254:7"), world.live.get("254:3"));
  assert.ok(world.asked.includes("create vg-data-blksnap --uuid blksnap-1-254:3 --noudevsync"));
});

test("a node with state, suspended, or being changed has no clone", async () => {
  const cases: [string, string, string, RegExp][] = [
    ["0 1000 cache 8:0 8:16 8:32 128 0 smq 0", "0", "", /type cache/],
    ["0 500 linear 8:0 0\n500 500 error", "0", "", /type error/],
    [
      "0 1000 crypt aes :32:logon:x:y 0 8:0 0",
      "0",
      "",
      /type crypt: .*device-mapper node below it$/,
    ],
    ["0 1000 multipath 0 0 1 1 service-time 0 1 2 8:0 1 1", "0", "", /multipath: .*volume on it$/],
    ["0 1000 linear 8:0 0", "1", "", /suspended/],
    ["0 1000 linear 8:0 0", "0", "0 900 linear 8:0 0", /an inactive table/],
    ["", "0", "", /no table/],
  ];
  for (const [table, suspended, waiting, why] of cases) {
    const world = new World();
    world.add("254:3", "vg-data", "", table, suspended);
    if (waiting !== "") world.waiting.set("254:3", waiting);
    const error = await failureOf(world.mapper.clone(world.node(), NAMES));
    assert.is(error.code, "NODE_NOT_CLONABLE");
    assert.match(error.message, why);
    assert.not(world.asked.some((one) => one.startsWith("create")));
  }
  const world = new World();
  world.add("254:3", "vg-data", "", "0 1000 linear 8:0 0");
  const long = { ...NAMES, name: "n".repeat(128) };
  assert.is((await failureOf(world.mapper.clone(world.node(), long))).code, "NODE_NOT_CLONABLE");
});

test("a splice is one linear target of the whole size, a return the clone's table", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", "0 1000 linear 8:0 2048");
  world.add("254:7", "vg-data-blksnap", NAMES.uuid, "0 1000 linear 8:0 2048");
  const { mapper } = world;
  assert.not(await mapper.isLinearOn("254:3", LAYER));
  await mapper.prepareSplice("254:3", LAYER);
  assert.is(world.waiting.get("254:3"), `0 1000 linear ${LAYER} 0`);
  world.live.set("254:3", `0 1000 linear ${LAYER} 0`);
  assert.ok(await mapper.isLinearOn("254:3", LAYER));
  assert.not(await mapper.isLinearOn("254:3", "259:1"));
  const error = await failureOf(mapper.prepareReturn("254:3", "254:7"));
  assert.match(error.message, /an inactive table: another program changes it/);
  world.waiting.delete("254:3");
  await mapper.prepareReturn("254:3", "254:7");
  assert.is(world.waiting.get("254:3"), "0 1000 linear 8:0 2048");
  assert.not(await mapper.isLinearOn("254:9", LAYER), "of a node that is gone");
});

test("a return is possible unless another program changes the node", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", `0 1000 linear ${LAYER} 0`);
  const { mapper } = world;
  const check = () => mapper.assertReturnable("254:3", LAYER, "254:7");
  assert.match((await failureOf(check())).message, /254:7 has no table/);
  world.add("254:7", "vg-data-blksnap", NAMES.uuid, "0 1000 linear 8:0 2048");
  await check();
  // The return itself drops a table of ours.
  world.waiting.set("254:3", `0 1000 linear ${LAYER} 0`);
  await check();
  world.waiting.set("254:3", "0 2000 linear 8:0 2048");
  assert.match((await failureOf(check())).message, /another program changes it/);
  world.waiting.clear();
  world.add("254:3", "vg-data", "", `0 1000 linear ${LAYER} 0`, "1");
  assert.match((await failureOf(check())).message, /is suspended/);
  assert.not(world.asked.some((one) => !one.startsWith("dm-table")));
});

test("a node is renamed by its name: the kernel renames none by its number", async () => {
  const world = new World();
  world.add("254:7", "old-blksnap", NAMES.uuid, "0 1000 linear 8:0 2048");
  const { mapper } = world;
  await mapper.rename("254:7", "old-blksnap");
  await mapper.rename("254:9", "new-blksnap");
  assert.equal(world.asked, []);
  await mapper.rename("254:7", "new-blksnap");
  assert.equal(world.asked, ["rename --noudevsync old-blksnap new-blksnap"]);
});

test("a volume whose group was renamed during the wait for its lock is left alone", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "LVM-x", "0 1000 linear 8:0 2048");
  const node = world.node();
  const { mapper } = world;
  const work = () => mapper.exclusively(node, async () => "done");
  assert.is(await work(), "done");
  world.add("254:3", "vg-archive", "LVM-x", "0 1000 linear 8:0 2048");
  assert.is(await work(), "done", "in the same group");
  world.add("254:3", "safe-data", "LVM-x", "0 1000 linear 8:0 2048");
  const failure = await failureOf(work());
  assert.is(failure.code, "DEVICE_MAPPER_FAILED");
  assert.match(failure.message, /vg-data is now safe-data, of another volume group/);
});

test("devices that LVM or md owns are recognised", () => {
  const world = new World();
  world.add("254:3", "luks", "CRYPT-x", "0 1000 linear 8:0 0");
  world.add("254:4", "vg-data", "LVM-x", "0 1000 linear 254:3 2048");
  world.add("254:5", "home", "CRYPT-y", "0 1000 linear 254:3 2048");
  const { mapper } = world;
  const finderOf = (...holders: string[]) => mapper.finderOf({ ...world.node(), holders });
  assert.equal(world.node().holders, []);
  assert.is(finderOf(), undefined);
  assert.is(finderOf("dm-5"), undefined);
  assert.is(finderOf("dm-5", "dm-4"), "LVM");
  assert.is(finderOf("md127"), "md");
});

test("only our own inactive table is dropped", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", `0 1000 linear ${LAYER} 0`);
  world.add("254:7", "vg-data-blksnap", NAMES.uuid, "0 1000 linear 8:0 2048");
  for (const own of [`0 1000 linear ${LAYER} 0`, "0 1000 linear 8:0 2048"]) {
    world.waiting.set("254:3", own);
    await world.mapper.dropWaiting("254:3", LAYER, "254:7");
    assert.not(world.waiting.has("254:3"));
  }
  world.waiting.set("254:3", "0 2000 linear 8:0 2048");
  await world.mapper.dropWaiting("254:3", LAYER, "254:7");
  assert.ok(world.waiting.has("254:3"));
  // Also if it replaces ours between the check and the drop.
  world.waiting.set("254:3", `0 1000 linear ${LAYER} 0`);
  const { ask } = world;
  const late = async (words: readonly string[]) => {
    if (words[0] === "dm-clear") world.waiting.set("254:3", "0 2000 linear 8:0 2048");
    return ask(words);
  };
  const ports = { program: PROGRAM, ask: late, tryFlock: () => true };
  await new DeviceMapper(ports, world.run, world.folder).dropWaiting("254:3", LAYER, "254:7");
  assert.is(world.waiting.get("254:3"), "0 2000 linear 8:0 2048");
});

test("queries while a node is suspended start no program", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", `0 1000 linear ${LAYER} 0`, "1");
  world.add("254:7", "vg-data-blksnap", NAMES.uuid, "0 1000 linear 8:0 2048");
  world.waiting.set("254:3", `0 1000 linear ${LAYER} 0`);
  const ports = { program: PROGRAM, ask: world.ask, tryFlock: () => true };
  const nothing = () => Promise.reject(new Error("a program is started"));
  const mapper = new DeviceMapper(ports, nothing, world.folder);
  assert.ok(await mapper.isLinearOn("254:3", LAYER));
  assert.ok(await mapper.hasOursWaiting("254:3", LAYER, "254:7"));
  assert.not(await mapper.haveSameTable("254:3", "254:7"));
  await mapper.exclusively(world.node(), async () => {
    await mapper.dropWaiting("254:3", LAYER, "254:7");
    await mapper.resume("254:3");
  });
  assert.is(world.asked.at(-1), "dm-resume 254 3");
});

test("the error has the kernel's response", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", "0 1000 linear 8:0 2048", "1");
  world.status = "-6";
  const error = await failureOf(world.mapper.resume("254:3"));
  assert.is(error.code, "DEVICE_MAPPER_FAILED");
  assert.match(error.message, /the node 254:3 is not resumed: ENXIO/);
});

test("the separate process implements the calls", async () => {
  const helper = new LockedHelper();
  // No node has such a number; a machine without the device mapper has no control of it, or one that nothing serves.
  for (const words of [["dm-table", "live"], ["dm-clear", ""], ["dm-resume"]]) {
    const [verb = "", ...more] = words;
    const [status] = await helper.ask([verb, "4095", "1048575", ...more], 60_000);
    assert.ok(["-6", "-2", "-13", "-1", "-19"].includes(status ?? ""), `${verb}: ${status}`);
  }
  assert.equal(await helper.ask(["dm-table", "4095"], 60_000), ["-22"]);
  helper.end();
});

test("a resumed node keeps its own table: another program's table is not made live", async () => {
  const world = new World();
  world.add("254:3", "vg-data", "", "0 1000 linear 8:0 2048", "1");
  world.waiting.set("254:3", "0 2000 linear 8:0 2048");
  const error = await failureOf(world.mapper.resume("254:3"));
  assert.match(error.message, /254:3 has an inactive table: another program changes it/);
  world.waiting.clear();
  await world.mapper.resume("254:3");
  assert.is(world.asked.at(-1), "dm-resume 254 3");
});

/** Our own dmsetup, first in the PATH. */
async function withProgram(text: string, work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "dmsetup-"));
  const path = process.env["PATH"];
  writeFileSync(join(folder, "dmsetup"), `#!/bin/sh\n${text}\n`);
  chmodSync(join(folder, "dmsetup"), 0o755);
  process.env["PATH"] = `${folder}:${path}`;
  try {
    await work(folder);
  } finally {
    process.env["PATH"] = path;
    rmSync(folder, { recursive: true });
  }
}

test("while a node is suspended one program works, with one call to the kernel", async () => {
  const world = new World();
  assert.is(await world.mapper.exchange("254:3"), 1500);
  assert.equal(world.asked.splice(0), [`${PROGRAM} 0 exchange 254 3`]);
  // Users get their data back even if the program cannot be locked in memory.
  await world.mapper.exchange("254:3", undefined, "return");
  assert.equal(world.asked, [`${PROGRAM} 0 return 254 3`]);
});

test("the program of an exchange reports why the kernel refuses it", async () => {
  // No node has such a number; a machine without the device mapper has no control of it, or one that nothing serves.
  const ports = { program: apartProgram, ask: async () => [], tryFlock };
  const error = await failureOf(new DeviceMapper(ports).exchange("4095:1048575"));
  assert.match(error.message, /^uring-apart 0 exchange 4095 1048575: \S.*: \S/);
  assert.is(error.code, "EXCHANGE_NOT_BEGUN", "it has no inactive table");
});

test("a program that takes too long is killed with its child processes", async () => {
  await withProgram("sleep 1000 & wait", async () => {
    const error = await failureOf(runDmsetup(["table"], { timeoutMs: 50 }));
    assert.match(error.message, /killed after 50 ms/);
  });
});

test("the error has the messages of dmsetup", async () => {
  await withProgram("echo no such device >&2; exit 1", async () => {
    const error = await failureOf(runDmsetup(["table", "x"]));
    assert.match(error.message, /dmsetup table x: no such device/);
  });
});

test.run();
