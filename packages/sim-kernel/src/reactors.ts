/** Reactors of a program on the machine's one thread: each takes a turn when its ring has completions. */
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { native } from "@blksnap/uring/testing";
import type { SimMachine } from "./machine.js";
import type { SimProcess } from "./process.js";
import type { SimRing } from "./sim-ring.js";

/** The interface of ReactorServer of @blksnap/data-plane. */
export interface TurningServer {
  turn(): boolean;
}

/** The parts of a server. */
export interface ServerSetup<Settings> {
  readonly wakeFd: number;
  readonly port: MessagePort;
  readonly say: (message: unknown) => void;
  readonly settings: Settings;
}

const TURN_US = 20;
const MESSAGE_US = 50;

class SimReactor<Settings> {
  readonly #machine: SimMachine;
  readonly #process: SimProcess;
  readonly #near: MessagePort;
  readonly #wakeFd: number;
  readonly #server: TurningServer;
  readonly #ring: SimRing;
  readonly #onExit: (error: Error | undefined) => void;
  #isScheduled = false;
  #isEnded = false;
  #onEnded: (() => void) | undefined;

  constructor(
    machine: SimMachine,
    make: (setup: ServerSetup<Settings>) => TurningServer,
    settings: Settings,
    onMessage: (message: unknown) => void,
    onExit: (error: Error | undefined) => void,
  ) {
    this.#machine = machine;
    this.#process = machine.process;
    this.#onExit = onExit;
    const { port1, port2 } = new MessageChannel();
    port1.unref();
    port2.unref();
    this.#near = port1;
    this.#wakeFd = native.eventFd(0, 0);
    const before = new Set(machine.rings.values());
    const say = (message: unknown): void => {
      const copy = structuredClone(message);
      const delayUs = 1 + machine.random.below(MESSAGE_US);
      machine.scheduler.after(delayUs, () => onMessage(copy), this.#process, true);
    };
    this.#server = make({ wakeFd: this.#wakeFd, port: port2, say, settings });
    this.#ring = [...machine.rings.values()].find((ring) => !before.has(ring)) as SimRing;
    this.#ring.onReady = () => this.#schedule();
    this.#process.endings.add(this);
    this.#schedule();
  }

  post(message: unknown): void {
    this.#near.postMessage(message);
    this.wake();
  }

  wake(): void {
    if (!this.#isEnded) this.#machine.wakeCounter(this.#wakeFd);
  }

  async stop(message: unknown): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      this.#onEnded = resolve;
    });
    if (this.#isEnded) return;
    this.post(message);
    await ended;
  }

  /** Its process has died. */
  end(): void {
    this.#isEnded = true;
    this.#near.close();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isEnded) return;
    this.#isScheduled = true;
    const delayUs = 1 + this.#machine.random.below(TURN_US);
    this.#machine.scheduler.after(delayUs, () => this.#turn(), this.#process);
  }

  #turn(): void {
    this.#isScheduled = false;
    if (this.#isEnded) return;
    const hadCompletions = this.#ring.ready > 0;
    let continues = false;
    let failure: Error | undefined;
    this.#machine.isTurning = true;
    try {
      continues = this.#server.turn();
    } catch (error) {
      failure = error as Error;
    } finally {
      this.#machine.isTurning = false;
    }
    if (!this.#process.isAlive) return;
    if (continues) {
      // The next turn submits what this one has prepared.
      if (hadCompletions || this.#ring.ready > 0) this.#schedule();
      return;
    }
    this.#isEnded = true;
    this.#process.endings.delete(this);
    this.#near.close();
    this.#process.closeFile(this.#wakeFd);
    this.#machine.scheduler.after(
      1,
      () => {
        this.#onExit(failure);
        this.#onEnded?.();
      },
      this.#process,
      true,
    );
  }
}

/**
 * How a ReactorPool starts its reactors on the machine.
 * @param make as `(setup) => new ReactorServer(setup)`
 */
export function reactorStarter<Settings>(
  machine: SimMachine,
  make: (setup: ServerSetup<Settings>) => TurningServer,
) {
  return (
    settings: Settings,
    onMessage: (message: unknown) => void,
    onExit: (error: Error | undefined) => void,
  ): SimReactor<Settings> => new SimReactor(machine, make, settings, onMessage, onExit);
}
