/** QEMU images, written by QEMU's own programs: qemu-img creates and checks them, qemu-nbd serves one for writing. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import { promisify } from "node:util";
import type { ByteRange } from "@blksnap/api";
import { RunLimit } from "@blksnap/client";
import { errnoNameOf, messageOf } from "@blksnap/errors";
import { BASE_ALLOCATION, NbdClient } from "@blksnap/nbd";
import { BackupError, targetError } from "./errors.js";
import { emptyRangesOf } from "./source.js";

const CONNECT_RETRY_MS = 20;
/** Generous, for a busy host or slow storage. */
const CONNECT_MS = 60_000;
const SAID_MAX = 4096;

const PACKAGES = { "qemu-img": "qemu-utils, on Fedora qemu-img", setpriv: "util-linux" } as const;

function missing(program: keyof typeof PACKAGES): BackupError {
  const hint = `Install its package: ${PACKAGES[program]}`;
  return new BackupError("TARGET_FAILED", `the program ${program} is not installed`, { hint });
}

function failed(program: string, path: string, said: string): BackupError {
  const why = said.trim().split("\n").at(-1) || "it does not say why";
  const code = /No space left|Disk quota|File too large/.test(said)
    ? "TARGET_FULL"
    : "TARGET_FAILED";
  return new BackupError(code, `${program} fails at ${path}: ${why}`);
}

/** Returns standard output. @throws BackupError TARGET_FAILED, TARGET_FULL */
export async function qemuImg(path: string, ...words: readonly string[]): Promise<string> {
  const program = "qemu-img";
  try {
    // A name with a colon would count as a protocol, so options precede it, and paths are absolute.
    const options = { env: { ...process.env, LC_ALL: "C" } };
    return (await promisify(execFile)(program, words, options)).stdout;
  } catch (error) {
    if (errnoNameOf(error) === "ENOENT") throw missing(program);
    const { stderr } = error as { readonly stderr?: string };
    throw failed(program, path, stderr || messageOf(error));
  }
}

export interface Qcow2Options {
  /** It is empty and has no backing file: zeros need not be written. */
  readonly isBlank?: boolean | undefined;
  readonly isReadOnly?: boolean | undefined;
}

/** A qcow2 file that is open only for this process. */
export class OpenQcow2 {
  readonly #path: string;
  readonly #server: ChildProcess;
  readonly #said: () => string;
  readonly #client: NbdClient;
  readonly #isBlank: boolean;

  private constructor(
    path: string,
    server: ChildProcess,
    said: () => string,
    client: NbdClient,
    isBlank: boolean,
  ) {
    this.#isBlank = isBlank;
    this.#path = path;
    this.#server = server;
    this.#said = said;
    this.#client = client;
  }

  /** @throws BackupError TARGET_FAILED, TARGET_FULL */
  static async open(path: string, options: Qcow2Options = {}): Promise<OpenQcow2> {
    const { isBlank = false, isReadOnly = false } = options;
    // A private folder: no other user may connect, and socket paths must be short.
    const folder = await mkdtemp(join(tmpdir(), "blksnap-qcow2-"));
    const socketPath = join(folder, "s");
    const modes = ["--format=qcow2", "--cache=writeback", "--discard=unmap"];
    const access = isReadOnly ? ["--read-only"] : ["--detect-zeroes=unmap"];
    const words = [`--socket=${socketPath}`, ...modes, ...access, path];
    // It ends with this process, even if that is killed before connecting. Only the export handles Ctrl-C.
    const server = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-nbd", ...words], {
      stdio: ["ignore", "ignore", "pipe"],
      detached: true,
    });
    let said = "";
    server.stderr?.on("data", (part) => {
      said = (said + part).slice(-SAID_MAX);
    });
    try {
      const client = await connected(server, socketPath, path, () => said);
      return new OpenQcow2(path, server, () => said, client, isBlank);
    } catch (error) {
      server.kill("SIGKILL");
      throw error;
    } finally {
      // Nothing else connects: a killed export leaves no process behind.
      await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    }
  }

  /** @throws NbdError */
  read(data: Uint8Array, offsetBytes: number): Promise<void> {
    return this.#client.readInto(offsetBytes, data);
  }

  /** Ranges known to be zeros, in order. */
  async emptyRanges(): Promise<readonly ByteRange[]> {
    return await emptyRangesOf(this.#client);
  }

  async write(data: Uint8Array, offsetBytes: number): Promise<void> {
    await this.#done(this.#client.write(offsetBytes, data));
  }

  /** The backing file has zeros there, too. */
  async writeZeros(offsetBytes: number, lengthBytes: number): Promise<void> {
    if (!this.#isBlank) await this.#done(this.#client.writeZeroes(offsetBytes, lengthBytes));
  }

  /** The file is complete, and no program has it open. */
  async finish(): Promise<void> {
    await this.#done(this.#client.flush());
    const ended = ending(this.#server);
    await this.#client.close();
    const status = await ended;
    if (status !== 0) throw failed("qemu-nbd", this.#path, this.#said());
  }

  /** Abandons an unfinished file. */
  async abandon(): Promise<void> {
    const ended = ending(this.#server);
    this.#server.kill("SIGKILL");
    await ended;
    await this.#client.close().catch(() => undefined);
  }

  async #done(request: Promise<void>): Promise<void> {
    await request.catch((error: unknown) => {
      throw targetError("write", this.#path, error);
    });
  }
}

/** The exit status of a process, also an ended one; null after a signal. */
async function ending(process: ChildProcess): Promise<number | null> {
  if (process.exitCode === null && process.signalCode === null) await once(process, "exit");
  return process.exitCode;
}

async function connected(
  server: ChildProcess,
  socketPath: string,
  path: string,
  said: () => string,
): Promise<NbdClient> {
  let gone: BackupError | undefined;
  server.once("error", (error) => {
    const isMissing = errnoNameOf(error) === "ENOENT";
    gone = isMissing ? missing("setpriv") : failed("qemu-nbd", path, messageOf(error));
  });
  server.once("exit", () => {
    gone ??= failed("qemu-nbd", path, said());
  });
  const limit = new RunLimit(CONNECT_MS);
  try {
    for (;;) {
      try {
        const contexts = [BASE_ALLOCATION];
        return await NbdClient.connect({ socketPath, exportName: "" }, { contexts });
      } catch (error) {
        await later(CONNECT_RETRY_MS);
        if (gone !== undefined) throw gone;
        if (limit.isOver) throw failed("qemu-nbd", path, messageOf(error));
      }
    }
  } finally {
    limit.end();
  }
}
