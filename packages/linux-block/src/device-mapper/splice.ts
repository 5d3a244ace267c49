/**
 * Puts a layer under a device-mapper node in use, and takes it out again.
 *
 * ```
 *   before    users ─▶ node ─▶ targets
 *   clone     users ─▶ node ─▶ targets ◀─ clone ◀─ layer      the layer is unused yet
 *   splice    users ─▶ node ─▶ layer ─▶ clone ─▶ targets
 * ```
 *
 * Tables are exchanged in one system call of one process: DM_DEV_SUSPEND without its flag, on a node with an inactive
 * table, freezes the file system, waits for I/O in flight, exchanges the tables and resumes. No process can die
 * between these steps, and an interrupted call leaves the node as it was. Only an exchange that the kernel refuses
 * leaves it suspended with its old table, so the calling process resumes it. Until then no program is started, and
 * none is read from a disk. If that process is killed first, another one resumes the node, which has run since before
 * and is locked in memory as well. dmsetup does what needs udev, or changes no node that has users: create, load,
 * rename, remove.
 *
 * Facts: drivers/md/dm-ioctl.c (do_resume), drivers/md/dm.c (__dm_suspend, dm_swap_table).
 */
import { getSystemErrorName } from "node:util";
import { LinuxBlockError } from "../errors.js";
import { type DmsetupOptions, type RunDmsetup, runDmsetup } from "./dmsetup.js";
import { type TryFlock, volumeGroupOf, withGroupLock } from "./lvm-lock.js";
import { type MappedNode, mappedNodeOf, mappedNodes } from "./mapped-node.js";
import type { Splice } from "./splice-state.js";
import { growthOf, MAPPED } from "./table-growth.js";

/**
 * Two tables would disagree about the state of other targets, or these cannot be loaded twice. Each has advice for
 * its users.
 */
const WAYS_ON: Readonly<Record<string, string>> = {
  crypt: "its key cannot be read; attach the device-mapper node below it",
  multipath: "multipathd replaces its table when paths change; attach a logical volume on it",
};
/** DM_NAME_LEN, including the final zero byte. */
const NAME_MAX = 127;
/**
 * The freeze of a file system writes its dirty data: little, after a sync. A program that is killed in a freeze ends
 * after it, and may have completed the exchange all the same.
 */
const EXCHANGE_LIMIT_MS = 20_000;
/** Exit statuses of its program: native/apart/exchange.h. */
const EXCHANGE_CODES = { 2: "EXCHANGE_NOT_BEGUN" } as const;

/** For queries of the kernel: it answers at once, unless the machine is out of memory. */
const CALL_LIMIT_MS = 10_000;
const EBUSY = 16;

/** Access to the device mapper besides dmsetup. */
export interface MapperPorts {
  /** Exchanges tables: `apartProgram` of @blksnap/uring; native/apart/exchange.h says how. */
  readonly program: string;
  /** Makes a running process do a call: returns its status, and further lines. native/apart/mapper.h has the calls. */
  readonly ask: (words: readonly string[], timeoutMs: number) => Promise<readonly string[]>;
  readonly tryFlock: TryFlock;
}

export interface CloneNames {
  readonly name: string;
  readonly uuid: string;
}

export class DeviceMapper {
  readonly #ports: MapperPorts;
  readonly #run: RunDmsetup;
  readonly #sysfs: string;

  constructor(ports: MapperPorts, run: RunDmsetup = runDmsetup, sysfs = "/sys") {
    this.#ports = ports;
    this.#run = run;
    this.#sysfs = sysfs;
  }

  /** Undefined if it is not a device-mapper node. @param number "major:minor" */
  node(number: string): MappedNode | undefined {
    return mappedNodeOf(number, this.#sysfs);
  }

  /** Undefined if it is gone, even if another node has its number. */
  nodeOf(splice: Splice): MappedNode | undefined {
    return splice.present(this.#sysfs);
  }

  nodes(): MappedNode[] {
    return mappedNodes(this.#sysfs);
  }

  /**
   * What finds its devices by their content, and uses this one: it would find the clone and the layer, too. Undefined
   * if nothing does.
   */
  finderOf({ holders }: MappedNode): string | undefined {
    if (holders.some((name) => name.startsWith("md"))) return "md";
    const logical = this.nodes().filter(({ uuid }) => uuid.startsWith("LVM-"));
    const names = logical.map(({ number }) => `dm-${number.split(":")[1]}`);
    return holders.some((name) => names.includes(name)) ? "LVM" : undefined;
  }

  /**
   * Creates a node with the table of another one.
   * @throws LinuxBlockError NODE_NOT_CLONABLE: it says why; DEVICE_MAPPER_FAILED: nothing is left
   */
  async clone(node: MappedNode, { name, uuid }: CloneNames): Promise<MappedNode> {
    if (name.length > NAME_MAX) {
      throw notClonable(`the name ${name} is too long for a device-mapper node`);
    }
    const table = await this.#clonableTable(node);
    await this.#run(["create", name, "--uuid", uuid, "--noudevsync"], { input: table });
    const made = this.nodes().find((one) => one.uuid === uuid);
    if (made?.sectors === node.sectors) return made;
    if (made !== undefined) await this.remove(made.number);
    throw new LinuxBlockError("DEVICE_MAPPER_FAILED", `${name} is not what ${node.name} is`);
  }

  /** @throws as clone() */
  async #clonableTable(node: MappedNode): Promise<string> {
    const { name } = node;
    if (node.isSuspended) throw notClonable(`${name} is suspended: resume it first`);
    if ((await this.#table(node.number, "waiting")) !== "") {
      throw notClonable(`${name} has an inactive table: resume it or clear it first`);
    }
    const table = await this.#table(node.number);
    const types = table.split("\n").map((line) => line.split(" ")[2] ?? "");
    const foreign = types.find((type) => !MAPPED.has(type));
    if (foreign === undefined) return table;
    const what = foreign === "" ? "no table" : `a target of type ${foreign}`;
    const why = WAYS_ON[foreign] ?? `only ${[...MAPPED].join(", ")} are supported`;
    throw notClonable(`${name} has ${what}: ${why}`);
  }

  /** Also for a node that is gone: then nothing leads anywhere. */
  async isLinearOn(number: string, layer: string): Promise<boolean> {
    if (this.node(number) === undefined) return false;
    const lines = (await this.#table(number)).split("\n");
    return lines.length === 1 && isLinear(lines[0] ?? "", layer);
  }

  /**
   * Changes a node while LVM leaves it alone.
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED: LVM does not, or has renamed its group meanwhile
   */
  exclusively<Result>(
    node: Pick<MappedNode, "number" | "name" | "uuid">,
    work: () => Promise<Result>,
  ): Promise<Result> {
    return withGroupLock(node, this.#ports.tryFlock, async () => {
      const found = this.node(node.number);
      // The lock has the group's old name, so it excludes no other program.
      if (found?.uuid === node.uuid && volumeGroupOf(found) !== volumeGroupOf(node)) {
        const what = `${node.name} is now ${found.name}, of another volume group`;
        throw new LinuxBlockError("DEVICE_MAPPER_FAILED", `${what}: try again`);
      }
      return work();
    });
  }

  /**
   * Puts a layer of the same size under a node. The layer cannot be opened exclusively as long as a table leads to
   * it, live or inactive.
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED: the node is as it was, unless isLinearOn() says that it is done
   */
  async prepareSplice(number: string, layer: string): Promise<void> {
    const sectors = this.node(number)?.sectors;
    if (!sectors) throw new LinuxBlockError("DEVICE_NOT_FOUND", `there is no node ${number}`);
    await this.#load(number, `0 ${sectors} linear ${layer} 0`);
  }

  /**
   * Whether prepareReturn() and exchange() should succeed.
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED, DEVICE_NOT_FOUND: it says why not
   */
  async assertReturnable(number: string, layer: string, clone: string): Promise<void> {
    if ((await this.#tableOf(clone)) === "") throw withoutTable(clone);
    const isOurs = await this.hasOursWaiting(number, layer, clone);
    await this.assertUnchanging(number, isOurs);
  }

  /** Loads the table of a clone for its node. @throws LinuxBlockError DEVICE_MAPPER_FAILED */
  async prepareReturn(number: string, clone: string): Promise<void> {
    const table = await this.#table(clone);
    if (table === "") throw withoutTable(clone);
    await this.#load(number, table);
  }

  /** Refuses to interrupt a change that another program has begun, such as LVM. */
  async #load(number: string, table: string): Promise<void> {
    await this.assertUnchanging(number);
    await this.#run(["load", ...wordsOf(number)], { input: table });
  }

  /** @throws LinuxBlockError DEVICE_MAPPER_FAILED */
  async assertUnchanging(number: string, mayWait = false): Promise<void> {
    const isWaiting = !mayWait && (await this.#table(number, "waiting")) !== "";
    if (!isWaiting && this.node(number)?.isSuspended !== true) return;
    const what = `the node ${number} is suspended, or has an inactive table`;
    throw new LinuxBlockError("DEVICE_MAPPER_FAILED", `${what}: another program changes it`);
  }

  /**
   * Switches a node to its inactive table in one step, with its file system frozen.
   * @param heldFd stays open until nothing happens to the node any more
   * @param what an exchange is refused if its program cannot be locked in memory, a return is not
   * @returns an upper bound of the users' wait, in microseconds
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED: it continues with its old table; EXCHANGE_NOT_BEGUN: it is as it
   *   was, perhaps suspended by another program, with the inactive table still loaded
   */
  async exchange(
    number: string,
    heldFd?: number,
    what: "exchange" | "return" = "exchange",
  ): Promise<number> {
    const { program } = this.#ports;
    const options: DmsetupOptions = {
      program,
      timeoutMs: EXCHANGE_LIMIT_MS,
      codes: EXCHANGE_CODES,
    };
    const held = heldFd === undefined ? {} : { heldFd };
    const said = await this.#run(["0", what, ...number.split(":")], { ...options, ...held });
    return Number(said);
  }

  /**
   * Whether the inactive table leads to the layer, or is that of the clone: any other belongs to another program.
   */
  async hasOursWaiting(number: string, layer: string, clone: string): Promise<boolean> {
    return (await this.#oursWaiting(number, layer, clone)) !== "";
  }

  /** Empty if there is none. */
  async #oursWaiting(number: string, layer: string, clone: string): Promise<string> {
    if (this.node(number) === undefined) return "";
    const waiting = await this.#table(number, "waiting");
    const isOurs =
      waiting !== "" && (isLinear(waiting, layer) || waiting === (await this.#tableOf(clone)));
    return isOurs ? waiting : "";
  }

  /** Leaves another table that was loaded meanwhile. */
  async dropWaiting(number: string, layer: string, clone: string): Promise<void> {
    const waiting = await this.#oursWaiting(number, layer, clone);
    if (waiting === "") return;
    const [status] = await this.#call("dm-clear", number, `${waiting}\n`);
    if (status !== -EBUSY) assertDone(status, `the inactive table of ${number} was not cleared`);
  }

  /**
   * Ends a suspension that an exchange has left.
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED; also if there is an inactive table, which would become the live one
   */
  async resume(number: string): Promise<void> {
    if (this.node(number)?.isSuspended !== true) return;
    const [status] = await this.#call("dm-resume", number);
    if (status === -EBUSY) {
      const what = `the node ${number} has an inactive table`;
      throw new LinuxBlockError("DEVICE_MAPPER_FAILED", `${what}: another program changes it`);
    }
    assertDone(status, `the node ${number} is not resumed`);
  }

  /** Whether two nodes lead to the same data. */
  async haveSameTable(one: string, other: string): Promise<boolean> {
    return (await this.#table(one)) === (await this.#table(other));
  }

  /** Whether a node leads to the data of its clone, and perhaps to more behind it. */
  async growthOf(number: string, clone: string): Promise<"same" | "grown" | undefined> {
    return growthOf(await this.#tableOf(number), await this.#tableOf(clone));
  }

  /**
   * Succeeds if the node is gone already.
   * @throws LinuxBlockError DEVICE_MAPPER_FAILED: there is one of this name, or it is too long
   */
  async rename(number: string, name: string): Promise<void> {
    const before = this.node(number)?.name;
    if (before === undefined || before === name) return;
    // The kernel renames a node only by its name, not by its number.
    await this.#run(["rename", "--noudevsync", before, name]);
  }

  /** Succeeds if it is gone already. @throws LinuxBlockError DEVICE_MAPPER_FAILED: it is in use */
  async remove(number: string): Promise<void> {
    if (this.node(number) === undefined) return;
    await this.#run(["remove", "--retry", "--noudevsync", ...wordsOf(number)]);
  }

  /** Empty for a node that is gone. */
  async #tableOf(number: string): Promise<string> {
    return this.node(number) === undefined ? "" : this.#table(number);
  }

  async #table(number: string, which: "live" | "waiting" = "live"): Promise<string> {
    const [status, ...lines] = await this.#call("dm-table", number, which);
    assertDone(status, `the ${which} table of the node ${number} cannot be read`);
    return lines.join("\n");
  }

  /** Needs nothing from a disk: any node may be suspended meanwhile. */
  async #call(
    verb: string,
    number: string,
    ...more: string[]
  ): Promise<[status: number, ...lines: string[]]> {
    const words = [verb, ...number.split(":"), ...more];
    const [status = "", ...lines] = await this.#ports.ask(words, CALL_LIMIT_MS);
    return [Number(status), ...lines];
  }
}

/** @throws LinuxBlockError DEVICE_MAPPER_FAILED */
function assertDone(status: number, what: string): void {
  if (status >= 0) return;
  throw new LinuxBlockError("DEVICE_MAPPER_FAILED", `${what}: ${getSystemErrorName(status)}`);
}

function isLinear(line: string, layer: string): boolean {
  const [start, , type, device, offset] = line.split(" ");
  return start === "0" && type === "linear" && device === layer && offset === "0";
}

function withoutTable(number: string): LinuxBlockError {
  return new LinuxBlockError("DEVICE_NOT_FOUND", `${number} has no table`);
}

function notClonable(what: string): LinuxBlockError {
  return new LinuxBlockError("NODE_NOT_CLONABLE", what);
}

/** By number: names change, and not every node has a uuid. */
function wordsOf(number: string): string[] {
  const [major = "", minor = ""] = number.split(":");
  return ["--major", major, "--minor", minor];
}
