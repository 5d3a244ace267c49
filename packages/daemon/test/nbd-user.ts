/** A user with a home, a disk in a file, and consecutive daemons of `--frontend nbd`: for tests that start some. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { NbdClient } from "@blksnap/nbd";
import * as assert from "uvu/assert";
import { program } from "./daemon-program.js";

export const MIB: number = 2 ** 20;
export const CAPACITY_BYTES: number = 16 * MIB;
export const isRoot: boolean = process.geteuid?.() === 0;

/** With the name of its error, if there is one. */
export type Answer = Record<string, unknown> & { code?: string };

export class User {
  readonly folder: string = mkdtempSync(join(tmpdir(), "blksnap-nbd-"));
  readonly disk: string = join(this.folder, "disk.img");
  readonly store: string = join(this.folder, "store");
  readonly runtime: string = join(this.folder, "run");
  readonly #uid: number | undefined;
  daemon: ChildProcess | undefined;
  stderr: string = "";

  /** @param uid of the user, if it is not that of this process */
  constructor(uid?: number) {
    this.#uid = uid;
    for (const folder of [this.store, this.runtime]) mkdirSync(folder);
    writeFileSync(this.disk, "");
    truncateSync(this.disk, CAPACITY_BYTES);
    if (uid === undefined) return;
    for (const path of [this.folder, this.disk, this.store, this.runtime])
      chownSync(path, uid, uid);
    chmodSync(this.runtime, 0o700);
  }

  get socket(): string {
    return join(this.runtime, "blksnap", "blksnapd.sock");
  }

  get #paths(): string[] {
    // Root's folders are outside of any home; they are the machine's.
    if (this.#uid !== undefined || !isRoot) return [];
    const state = join(this.runtime, "blksnap", "state");
    const persistent = join(this.folder, "kept");
    return [`--state-dir=${state}`, `--persistent-dir=${persistent}`, `--socket=${this.socket}`];
  }

  get #surroundings(): { env: Record<string, string>; uid?: number; gid?: number } {
    const { PATH = "" } = process.env;
    const who = this.#uid === undefined ? {} : { uid: this.#uid, gid: this.#uid };
    return { env: { PATH, HOME: this.folder, XDG_RUNTIME_DIR: this.runtime }, ...who };
  }

  /** Runs the checks as `blksnapctl doctor` does; asks no daemon. */
  async doctor(): Promise<{ check: string; state: string }[]> {
    const words = [program, "--doctor", "--frontend=nbd", "--socket", this.socket, ...this.#paths];
    const { stdout } = await promisify(execFile)(process.execPath, words, this.#surroundings);
    return JSON.parse(stdout).checks;
  }

  start(...more: string[]): ChildProcess {
    const words = [program, "--log-level=warn", "--reactors=1", ...this.#paths, ...more];
    const daemon = spawn(process.execPath, words, {
      stdio: ["ignore", "ignore", "pipe"],
      ...this.#surroundings,
    });
    this.stderr = "";
    daemon.stderr?.on("data", (text) => {
      this.stderr += text;
    });
    return daemon;
  }

  /** Resolves when it serves. */
  async serve(...more: string[]): Promise<void> {
    this.daemon = this.start("--frontend=nbd", ...more);
    const serves = ({ code }: Answer) => code === undefined;
    while (!(await this.ask("GET", "/v1/status").then(serves, () => false))) {
      assert.is(this.daemon.exitCode, null, this.stderr);
      await sleep(20);
    }
  }

  async end(how: "SIGKILL" | "SIGTERM"): Promise<number | null> {
    const { daemon } = this;
    assert.ok(daemon !== undefined);
    const exit = once(daemon, "exit");
    daemon.kill(how);
    const [status] = (await exit) as [number | null];
    this.daemon = undefined;
    return status;
  }

  ask(method: string, path: string, body?: unknown): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { "content-type": "application/json" };
      const asked = request({ socketPath: this.socket, method, path, headers }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part) => {
          text += part;
        });
        response.on("end", () => {
          const answer = text === "" ? {} : JSON.parse(text);
          resolve({ ...answer, code: answer.error?.name });
        });
      });
      asked.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async close(): Promise<void> {
    if (this.daemon?.exitCode === null && this.daemon.signalCode === null)
      await this.end("SIGKILL");
    rmSync(this.folder, { recursive: true });
  }
}

/** All of an export. */
export async function contentOf(uri: string): Promise<Buffer> {
  const client = await NbdClient.connect(uri);
  try {
    return Buffer.from(await client.read(0, CAPACITY_BYTES));
  } finally {
    await client.close();
  }
}

export function text(answer: Answer, name: string): string {
  const value = answer[name];
  assert.type(value, "string", JSON.stringify(answer));
  return value as string;
}

/** The reactor may not have noticed yet that the last client is gone. */
export async function detachedSoon(user: User, device: string): Promise<void> {
  for (;;) {
    const { code } = await user.ask("DELETE", `/v1/trackers?device=${device}`);
    if (code === undefined) return;
    assert.is(code, "FRONT_IN_USE");
    await sleep(20);
  }
}
