import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LoopStatus, LoopTable } from "@blksnap/linux-block";
import { test } from "uvu";
import * as assert from "uvu/assert";

const LIMIT_MS = 1_000;
const ETIMEDOUT = 110;
const ENXIO = 6;

/** Loop devices with files, and the calls that query them. */
class Machine {
  readonly root = mkdtempSync(join(tmpdir(), "blksnap-loops-"));
  readonly calls: (readonly string[])[] = [];
  readonly silent = new Set<string>();
  readonly inodes = new Map<string, number>();
  onCall: () => void = () => undefined;
  readonly table = new LoopTable(async (paths) => {
    this.calls.push(paths.map((path) => path.replace("/dev/", "")));
    this.onCall();
    if (paths.some((path) => this.silent.has(path))) return paths.map(() => -ETIMEDOUT);
    return paths.map((path): LoopStatus | number => {
      const inode = this.inodes.get(path);
      return inode === undefined ? -ENXIO : { device: 0x801, inode, special: 0, loop: 0x700 };
    });
  }, this.root);

  /** @param sequence of the disk: another one for each file that it gets */
  show(name: string, inode: number, sequence: number): void {
    const folder = join(this.root, "block", name);
    mkdirSync(join(folder, "loop"), { recursive: true });
    writeFileSync(join(folder, "loop/backing_file"), "/some/file\n");
    writeFileSync(join(folder, "diskseq"), `${sequence}\n`);
    this.inodes.set(`/dev/${name}`, inode);
  }

  clear(name: string): void {
    rmSync(join(this.root, "block", name, "loop"), { recursive: true });
    this.inodes.delete(`/dev/${name}`);
  }

  async identities(): Promise<Map<string, string>> {
    const known = await this.table.read(LIMIT_MS);
    return new Map([...known].map(([name, { backing }]) => [name, backing.identity]));
  }

  async names(): Promise<string[]> {
    return [...(await this.identities()).keys()].sort();
  }
}

async function withMachine(use: (machine: Machine) => Promise<void>): Promise<void> {
  const machine = new Machine();
  mkdirSync(join(machine.root, "block/sda"), { recursive: true });
  try {
    await use(machine);
  } finally {
    rmSync(machine.root, { recursive: true });
  }
}

test("all are queried at once, and each only once as long as it has the same file", () =>
  withMachine(async (machine) => {
    machine.show("loop0", 10, 1);
    machine.show("loop1", 11, 2);
    const first = await machine.identities();
    assert.equal([...first.keys()].sort(), ["loop0", "loop1"]);
    assert.not.equal(first.get("loop0"), first.get("loop1"));
    assert.equal(await machine.identities(), first);
    assert.equal(machine.calls, [["loop0", "loop1"]]);
    machine.show("loop1", 12, 3);
    const second = await machine.identities();
    assert.is(second.get("loop0"), first.get("loop0"));
    assert.not.equal(second.get("loop1"), first.get("loop1"));
    assert.equal(machine.calls.slice(1), [["loop1"]]);
    machine.clear("loop0");
    assert.equal(await machine.names(), ["loop1"]);
  }));

test("a device that gets another file during the query is queried again", () =>
  withMachine(async (machine) => {
    machine.show("loop0", 10, 1);
    machine.onCall = () => machine.show("loop0", 11, 2);
    assert.equal(await machine.names(), []);
    machine.onCall = () => undefined;
    assert.equal(await machine.names(), ["loop0"]);
  }));

test("a device that does not answer does not affect the others", () =>
  withMachine(async (machine) => {
    for (const [index, name] of ["loop0", "loop1", "loop2"].entries()) {
      machine.show(name, index, index + 1);
    }
    machine.silent.add("/dev/loop1");
    assert.equal(await machine.names(), ["loop0", "loop2"]);
    machine.silent.clear();
    assert.equal(await machine.names(), ["loop0", "loop1", "loop2"]);
  }));

test.run();
