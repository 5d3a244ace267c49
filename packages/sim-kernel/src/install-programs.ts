/** Replaces `node:child_process` by that of the simulated machine: the helper program, and others from a table. */
import { EventEmitter } from "node:events";
import { createRequire, syncBuiltinESMExports } from "node:module";
import { apartProgram } from "@blksnap/uring";
import { type Answer, ApartCalls } from "./apart.js";
import { Errno, Killed } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { SimProcess } from "./process.js";

type Active = () => SimMachine | undefined;
type AnyCall = (...words: unknown[]) => unknown;
type Callback = (error: Error | null, stdout: string, stderr: string) => void;

const LATENCY_US = 300;
const CHILD_PID = 500_000;

class Pipe extends EventEmitter {
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  destroy(): this {
    return this;
  }
  setEncoding(): this {
    return this;
  }
}

/** A child process. It does what it is asked even if the asking program has died. */
class SimChild extends EventEmitter {
  readonly pid = CHILD_PID;
  readonly stdout: Pipe = new Pipe();
  readonly stderr: Pipe = new Pipe();
  readonly stdin: Pipe & { write(text: string): boolean; end(): void };
  protected readonly machine: SimMachine;
  protected readonly parent: SimProcess;
  #isLeft = false;

  constructor(machine: SimMachine) {
    super();
    this.machine = machine;
    this.parent = machine.process;
    const onText = (text: string): void => this.onText(text);
    this.stdin = Object.assign(new Pipe(), {
      write: (text: string) => {
        onText(text);
        return true;
      },
      end: () => undefined,
    });
    this.parent.endings.add(this);
  }

  protected onText(_text: string): void {}

  /** Runs an action in the program, unless the program has died or detached. */
  protected tell(action: () => void): void {
    const delayUs = 1 + this.machine.random.below(LATENCY_US);
    this.machine.scheduler.after(
      delayUs,
      () => {
        if (!this.#isLeft) action();
      },
      this.parent,
      true,
    );
  }

  kill(): boolean {
    this.#isLeft = true;
    this.parent.endings.delete(this);
    return true;
  }

  ref(): void {}

  unref(): void {}

  /** The program has died, and this process with it. */
  end(): void {
    this.#isLeft = true;
    this.emit("close", null);
  }
}

/** The helper program, in its loop of questions and answers. */
class ApartServer extends SimChild {
  readonly #calls: ApartCalls;

  constructor(machine: SimMachine) {
    super(machine);
    this.#calls = new ApartCalls(machine);
  }

  protected override onText(text: string): void {
    const [count, ...words] = text.split("\0");
    this.machine.scheduler.after(1 + this.machine.random.below(LATENCY_US), () => {
      this.#calls.call(words.slice(0, Number(count)), (answer) => {
        this.tell(() => this.stdout.emit("data", Buffer.from(textOf(answer))));
      });
    });
  }
}

function textOf([status, ...lines]: Answer): string {
  const answer = `${status}\n${lines.map((line) => `${line}\n`).join("")}`;
  return `${Buffer.byteLength(answer)}\n${answer}`;
}

/** A program that ends by itself. */
class ShortProgram extends SimChild {
  constructor(machine: SimMachine, result: [number, string, string], callback?: Callback) {
    super(machine);
    const [status, stdout, stderr] = result;
    this.tell(() => {
      this.parent.endings.delete(this);
      if (stdout !== "") this.stdout.emit("data", Buffer.from(stdout));
      if (stderr !== "") this.stderr.emit("data", Buffer.from(stderr));
      this.emit("exit", status);
      this.emit("close", status);
      const error = status === 0 ? null : Object.assign(new Error(stderr), { code: status });
      callback?.(error, stdout, stderr);
    });
  }
}

export function installPrograms(active: Active): void {
  const programs = createRequire(import.meta.url)("node:child_process") as Record<string, AnyCall>;
  const realSpawn = programs["spawn"];
  programs["spawn"] = (...words: unknown[]): unknown => {
    const machine = active();
    if (machine === undefined) return realSpawn(...words);
    if (machine.isDying) throw new Killed();
    const [name, given = []] = words as [string, readonly string[]];
    if (name === apartProgram && given[1] === "serve") return new ApartServer(machine);
    return new ShortProgram(machine, run(machine, name, given));
  };
  const realExecFile = programs["execFile"];
  programs["execFile"] = (...words: unknown[]): unknown => {
    const machine = active();
    if (machine === undefined) return realExecFile(...words);
    if (machine.isDying) throw new Killed();
    const [name, given = []] = words as [string, readonly string[]];
    const callback = words.at(-1) as Callback;
    return new ShortProgram(machine, run(machine, name, given), callback);
  };
  syncBuiltinESMExports();
}

function run(
  machine: SimMachine,
  name: string,
  words: readonly string[],
): [number, string, string] {
  const program = machine.programs.get(name);
  if (program !== undefined) return program(words);
  if (name === apartProgram) return [0, alone(words.slice(1)), ""];
  if (name === "partx") return [1, "", "partx: failed to read partition table"];
  machine.trace(`no program ${name} ${words.join(" ")}`);
  return [127, "", `${name}: not found`];
}

/** Calls of the helper program in a process of their own. */
function alone([verb, , ...paths]: readonly string[]): string {
  // On this machine, no file system has anything to write back.
  if (verb === "sync") return `0\n${paths.map(() => "0\n").join("")}`;
  if (verb === "mounts") return "0\n";
  if (verb === "reach") return "end\n";
  return `${-Errno.EINVAL}\n`;
}
