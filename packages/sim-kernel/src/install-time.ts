/** Replaces timers, clocks and random numbers by those of the simulated machine. */
import { createRequire, syncBuiltinESMExports } from "node:module";
import { Killed } from "./errno.js";
import type { SimMachine } from "./machine.js";
import type { SimEvent } from "./scheduler.js";

type Active = () => SimMachine | undefined;
type AnyCall = (...words: unknown[]) => unknown;

/** The result of setTimeout(). */
class SimTimer {
  #event: SimEvent | undefined;
  readonly #machine: SimMachine;
  readonly #delayMs: number;
  readonly #repeats: boolean;
  readonly #call: () => void;

  constructor(machine: SimMachine, delayMs: number, repeats: boolean, call: () => void) {
    this.#machine = machine;
    this.#delayMs = Math.max(1, Number.isFinite(delayMs) ? delayMs : 1);
    this.#repeats = repeats;
    this.#call = call;
    this.#arm();
  }

  #arm(): void {
    const process = this.#machine.runningProcess;
    // A timer of a life that has ended never fires.
    if (this.#machine.isDying) return;
    const fire = (): void => {
      if (this.#repeats) this.#arm();
      this.#call();
    };
    this.#event = this.#machine.scheduler.after(this.#delayMs * 1000, fire, process, true);
  }

  close(): void {
    this.#event?.cancel();
    this.#event = undefined;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }

  refresh(): this {
    this.close();
    this.#arm();
    return this;
  }
}

/** Runs a callback; if its process is killed in it, that ends there. */
function unlessKilled(call: () => void): void {
  try {
    call();
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
  }
}

export function installTime(active: Active): void {
  const require = createRequire(import.meta.url);
  const timers = require("node:timers") as Record<string, AnyCall>;
  const promised = require("node:timers/promises") as Record<string, AnyCall>;
  const table = globalThis as unknown as Record<string, AnyCall>;

  for (const [name, repeats] of [
    ["setTimeout", false],
    ["setInterval", true],
  ] as const) {
    const real = table[name];
    const replaced = (call: () => void, delayMs = 1, ...words: unknown[]): unknown => {
      const machine = active();
      if (machine === undefined) return real(call, delayMs, ...words);
      const bound = words.length === 0 ? call : () => (call as AnyCall)(...words);
      return new SimTimer(machine, delayMs as number, repeats, bound as () => void);
    };
    table[name] = Object.assign(replaced, symbolsOf(real)) as AnyCall;
    timers[name] = table[name];
  }
  for (const name of ["clearTimeout", "clearInterval"]) {
    const real = table[name];
    table[name] = (timer: unknown): unknown =>
      timer instanceof SimTimer ? timer.close() : real(timer);
    timers[name] = table[name];
  }
  const realMicrotask = table["queueMicrotask"];
  table["queueMicrotask"] = (call: unknown): unknown =>
    realMicrotask(active() === undefined ? call : () => unlessKilled(call as () => void));
  const realImmediate = table["setImmediate"];
  table["setImmediate"] = (call: unknown, ...words: unknown[]): unknown => {
    const machine = active();
    if (machine === undefined) return realImmediate(call, ...words);
    return new SimTimer(machine, 0.001, false, () => (call as AnyCall)(...words));
  };
  installPromised(active, promised);
  installClocks(active);
  syncBuiltinESMExports();
}

function symbolsOf(call: AnyCall): object {
  return Object.fromEntries(
    Object.getOwnPropertySymbols(call).map((key) => [
      key,
      (call as unknown as Record<symbol, unknown>)[key],
    ]),
  );
}

function installPromised(active: Active, promised: Record<string, AnyCall>): void {
  const realTimeout = promised["setTimeout"];
  promised["setTimeout"] = (delayMs = 1, value?: unknown, options?: unknown): unknown => {
    const machine = active();
    if (machine === undefined) return realTimeout(delayMs, value, options);
    const { signal } = (options ?? {}) as { signal?: AbortSignal };
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        timer.close();
        reject(new DOMException("The operation was aborted", "AbortError"));
      };
      const timer = new SimTimer(machine, delayMs as number, false, () => {
        signal?.removeEventListener("abort", giveUp);
        resolve(value);
      });
      if (signal?.aborted) giveUp();
      else signal?.addEventListener("abort", giveUp, { once: true });
    });
  };
  const realImmediate = promised["setImmediate"];
  promised["setImmediate"] = (value?: unknown): unknown => {
    const machine = active();
    if (machine === undefined) return realImmediate(value);
    return new Promise((resolve) => new SimTimer(machine, 0.001, false, () => resolve(value)));
  };
}

function installClocks(active: Active): void {
  const realNow = performance.now.bind(performance);
  performance.now = () => active()?.upMs ?? realNow();
  const RealDate = Date;
  class SimDate extends RealDate {
    constructor(...words: []) {
      const machine = active();
      if (words.length > 0 || machine === undefined) super(...words);
      else super(machine.wallMs);
    }

    static override now(): number {
      return active()?.wallMs ?? RealDate.now();
    }
  }
  globalThis.Date = SimDate as unknown as DateConstructor;
  const realBigint = process.hrtime.bigint;
  process.hrtime.bigint = () => {
    const machine = active();
    return machine === undefined ? realBigint() : BigInt(Math.floor(machine.upMs * 1e6));
  };
}

export function installRandom(active: Active): void {
  const crypto = createRequire(import.meta.url)("node:crypto") as Record<string, AnyCall>;
  const realUuid = crypto["randomUUID"];
  crypto["randomUUID"] = (...words: unknown[]): unknown => {
    const machine = active();
    return machine === undefined ? realUuid(...words) : machine.random.uuid();
  };
  const realFill = crypto["randomFillSync"];
  crypto["randomFillSync"] = (bytes: unknown, ...words: unknown[]): unknown => {
    const machine = active();
    if (machine === undefined) return realFill(bytes, ...words);
    machine.random.fill(bytes as Uint8Array);
    return bytes;
  };
  const realBytes = crypto["randomBytes"];
  crypto["randomBytes"] = (count: unknown, ...words: unknown[]): unknown => {
    const machine = active();
    if (machine === undefined || words.length > 0) return realBytes(count, ...words);
    const bytes = Buffer.alloc(count as number);
    machine.random.fill(bytes);
    return bytes;
  };
  syncBuiltinESMExports();
}
