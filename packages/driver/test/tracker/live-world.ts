/** Live attach with a device mapper that fails where the test says. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DeviceMapper, Splice } from "@blksnap/linux-block";
import { StateDirectory } from "../../dist/records/state-directory.js";
import { LiveAttach } from "../../dist/tracker/live-attach.js";
import { LiveExchange } from "../../dist/tracker/live-exchange.js";
import type { Tracker } from "../../dist/tracker/tracker.js";

/** No machine has such a node. */
export const NODE = { number: "254:1048575", name: "vg-data", uuid: "LVM-x", clone: "254:7" };
export const FRONT = "259:0";

/** The tables of one node; a step that fails may still have taken effect. */
export class FakeMapper {
  leadsTo = "disk";
  waiting: string | undefined;
  failing = "";
  doneAllTheSame = false;
  readonly asked: string[] = [];
  present: { number: string; name: string; uuid: string }[] = [NODE];
  isSuspended = false;
  /** What an exchange leaves if its program is killed. */
  leavesSuspended = false;
  same = true;
  onLoad = (): void => undefined;
  /** Called at each sync of the node, and of paths besides. */
  onSync = (paths: readonly string[], _limitMs: number): number[] => paths.map(() => 0);
  /** What the node leads to after an exchange, because of another program. */
  stolen: string | undefined;
  isHeldByLvm = false;

  #step(name: string, work: () => void): Promise<void> {
    this.asked.push(name);
    const fails = name.startsWith(this.failing) && this.failing !== "";
    if (fails && name === "exchange") this.isSuspended = this.leavesSuspended;
    if (!fails || this.doneAllTheSame) work();
    return fails ? Promise.reject(new Error(`${name} fails`)) : Promise.resolve();
  }

  isLinearOn = async (_: string, layer: string) => this.leadsTo === layer;
  prepareSplice = (_: string, layer: string) =>
    this.#step("load", () => {
      this.waiting = layer;
      this.onLoad();
    });
  prepareReturn = () =>
    this.#step("load", () => {
      this.waiting = "disk";
      this.onLoad();
    });
  /** Duration in microseconds. */
  exchange = () =>
    this.#step("exchange", () => {
      this.leadsTo = this.stolen ?? this.waiting ?? this.leadsTo;
      this.waiting = undefined;
    }).then(() => 1234);
  dropWaiting = () => this.#step("drop", () => (this.waiting = undefined));
  resume = (number: string) => this.#step(`resume ${number}`, () => (this.isSuspended = false));
  clone = async () => {
    this.asked.push("clone");
    return { number: "254:8" };
  };
  assertReturnable = () => this.#step("return", () => undefined);
  remove = (number: string) => this.#step(`remove ${number}`, () => undefined);
  /** Ends when the test lets it. */
  rename = (_: string, name: string) =>
    new Promise<void>((resolve) => {
      this.asked.push(name);
      this.onRenamed = resolve;
    });
  onRenamed = (): void => undefined;
  nodes = () => this.present;
  node = (number: string) => {
    const found = this.present.find((one) => one.number === number);
    return found && { ...found, isSuspended: this.isSuspended };
  };
  nodeOf = ({ node: { number, uuid } }: Splice) => {
    const found = this.node(number);
    return found?.uuid === uuid ? found : undefined;
  };
  haveSameTable = async () => this.same;
  growth: "same" | "grown" | undefined = "same";
  growthOf = async () => this.growth;
  hasOursWaiting = async (_: string, layer: string) =>
    this.waiting === layer || this.waiting === "disk";
  exclusively = async (_: unknown, work: () => Promise<void>) => {
    if (this.isHeldByLvm) throw new Error("LVM changes the volume group");
    await work();
  };
}

/** A new state directory, and a log whose errors the test reads. */
export function stateAndLog() {
  const state = new StateDirectory(mkdtempSync(join(tmpdir(), "live-")));
  const errors: string[] = [];
  const error = (_: unknown, text: string) => errors.push(text);
  const logger = { warn: () => undefined, error, fatal: error };
  return { state, errors, logger };
}

export function world() {
  const { state, errors, logger } = stateAndLog();
  const pausesMs: number[] = [];
  const info = ({ withoutIoMs }: { withoutIoMs: number }) => pausesMs.push(withoutIoMs);
  const dm = new FakeMapper();
  const context = { state, logger: { ...logger, info }, blockDevices: {} } as never;
  const mapper = dm as unknown as DeviceMapper;
  const exchanges = new LiveExchange(context, mapper, 1);
  const sync = async (paths: readonly string[], limitMs: number) => dm.onSync(paths, limitMs);
  const live = new LiveAttach(context, mapper, { exchanges, sync });
  const splice = new Splice(NODE);
  splice.front = FRONT;
  const tracker = {
    device: "/dev/vg/data",
    front: { deviceNumber: FRONT, id: 0, path: "/dev/no-ublkb0" },
    splice,
    noteLink: () => dm.asked.push("note"),
    noteMade: (isMade: boolean) => splice.noteMade(isMade),
  } as never;
  return {
    state,
    errors,
    pausesMs,
    dm,
    live,
    exchanges,
    splice,
    tracker: tracker as Tracker & { splice: Splice },
  };
}

export async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error) => error.code,
  );
}
