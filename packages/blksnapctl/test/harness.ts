/**
 * Runs `blksnapctl` against a fake daemon: as a process, or within this one without the program's start, which costs
 * a tenth of a second of CPU time. There are hundreds of runs; examples of help that need a shell start the program.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FakeDaemon, startFakeDaemon } from "../../api-server/dist/testing/fake-daemon.js";
import type { FakeDriver } from "../../api-server/dist/testing/fake-driver.js";
import { run as runCommand } from "../dist/run.js";
import type { DataStreams } from "../dist/verb.js";

export const program: string = join(import.meta.dirname, "../bin/blksnapctl.mjs");

/** Standard input and output of a program that is started by hand. */
export const terminals: DataStreams = {
  outFd: -1,
  isInTerminal: true,
  isOutTerminal: true,
  leaveOutput: () => undefined,
  input: () => {
    throw new Error("no test reads it");
  },
};

export interface Outcome {
  readonly status: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly child: ChildProcess;
  readonly outcome: Promise<Outcome>;
  /** Standard output so far. */
  out(): string;
}

export interface Harness {
  readonly driver: FakeDriver;
  readonly events: FakeDaemon["events"];
  readonly server: FakeDaemon["server"];
  readonly dir: string;
  readonly socketPath: string;
  /** The program, as a process. */
  start(...args: string[]): Running;
  /** Within this process. */
  run(...args: string[]): Promise<Outcome>;
  /** As `run`, for a command that must succeed; returns its output. */
  ok(...args: string[]): Promise<string>;
  stop(): Promise<void>;
}

export function startProgram(socketPath: string, args: readonly string[]): Running {
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...process.env, BLKSNAP_SOCKET: socketPath, LANG: "C.UTF-8", LC_ALL: "" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (part) => {
    out += part;
  });
  child.stderr.on("data", (part) => {
    err += part;
  });
  const outcome = new Promise<Outcome>((done) => {
    child.on("close", (status, signal) => done({ status, signal, out, err }));
  });
  return { child, outcome, out: () => out };
}

async function runWithin(socketPath: string, args: readonly string[]): Promise<Outcome> {
  const told = { out: "", err: "" };
  const environment = { BLKSNAP_SOCKET: socketPath, LANG: "C.UTF-8" };
  // Completion and child processes use the process's own environment.
  process.env["BLKSNAP_SOCKET"] = socketPath;
  const status = await runCommand(args, {
    environment,
    columns: undefined,
    writeOut: (text) => {
      told.out += Buffer.from(text as string).toString();
    },
    writeError: (text) => {
      told.err += text;
    },
    untilInterrupted: () => new AbortController().signal,
    streams: terminals,
  });
  return { status, signal: null, ...told };
}

export async function startHarness(): Promise<Harness> {
  const dir = await mkdtemp(join(tmpdir(), "blksnapctl-"));
  const socketPath = join(dir, "s.sock");
  const { driver, events, server } = await startFakeDaemon(socketPath);
  const run = (...args: string[]) => runWithin(socketPath, args);
  return {
    driver,
    events,
    server,
    dir,
    socketPath,
    start: (...args) => startProgram(socketPath, args),
    run,
    ok: async (...args) => {
      const { status, out, err } = await run(...args);
      if (status !== 0 || err !== "") {
        throw new Error(`blksnapctl ${args.join(" ")}: status ${status}: ${err}`);
      }
      return out;
    },
    stop: async () => {
      await server.close();
      await rm(dir, { recursive: true });
    },
  };
}

export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + 200_000;
  while (!holds()) {
    if (performance.now() > deadlineMs) throw new Error(`never happened: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}
