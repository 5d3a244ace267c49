/** Images of QEMU, written by its own programs: qemu-img makes and checks them, qemu-nbd serves one to be written. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as later } from "node:timers/promises";
import { promisify } from "node:util";
import { errnoNameOf, messageOf } from "@blksnap/errors";
import { NbdClient } from "@blksnap/nbd";
import { BackupError, targetError } from "./errors.js";

const CONNECT_RETRY_MS = 20;
/** Of a host that is busy, and of a storage that is slow to open. */
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
  return new BackupError(code, `${program} can't write ${path}: ${why}`);
}

/** @throws BackupError TARGET_FAILED, TARGET_FULL */
export async function qemuImg(path: string, ...words: readonly string[]): Promise<void> {
  const program = "qemu-img";
  // A name with a colon would be taken for a protocol: options stand before, and paths are absolute.
  await promisify(execFile)(program, words, { env: { ...process.env, LC_ALL: "C" } }).catch(
    (error: Error & { readonly stderr?: string }) => {
      if (errnoNameOf(error) === "ENOENT") throw missing(program);
      throw failed(program, path, error.stderr ?? messageOf(error));
    },
  );
}

/** A qcow2 that is open to be written, for this process alone. */
export class OpenQcow2 {
  readonly #path: string;
  readonly #server: ChildProcess;
  readonly #said: () => string;
  readonly #client: NbdClient;

  private constructor(path: string, server: ChildProcess, said: () => string, client: NbdClient) {
    this.#path = path;
    this.#server = server;
    this.#said = said;
    this.#client = client;
  }

  static async open(path: string): Promise<OpenQcow2> {
    // Of its own: no other user may connect, and a path of a socket is short.
    const folder = await mkdtemp(join(tmpdir(), "blksnap-qcow2-"));
    const socketPath = join(folder, "s");
    const modes = ["--format=qcow2", "--cache=writeback", "--discard=unmap"];
    const words = [`--socket=${socketPath}`, ...modes, "--detect-zeroes=unmap", path];
    // It ends with this process, also where that is killed before it has connected. Ctrl-C is for the export alone.
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
      return new OpenQcow2(path, server, () => said, client);
    } catch (error) {
      server.kill("SIGKILL");
      throw error;
    } finally {
      // Nothing else connects: an export that is killed while it copies leaves none.
      await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    }
  }

  async write(data: Uint8Array, offsetBytes: number): Promise<void> {
    await this.#done(this.#client.write(offsetBytes, data));
  }

  /** What a backing file has there is zeros, too. */
  async writeZeros(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#done(this.#client.writeZeroes(offsetBytes, lengthBytes));
  }

  /** All is in the file, and no program has it open. */
  async finish(): Promise<void> {
    await this.#done(this.#client.flush());
    const ended = ending(this.#server);
    await this.#client.close();
    const status = await ended;
    if (status !== 0) throw failed("qemu-nbd", this.#path, this.#said());
  }

  /** Leaves what is not finished. */
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

/** The status that a process ends with, or has ended with; null after a signal. */
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
  for (const untilMs = performance.now() + CONNECT_MS; ; ) {
    try {
      return await NbdClient.connect({ socketPath, exportName: "" });
    } catch (error) {
      await later(CONNECT_RETRY_MS);
      if (gone !== undefined) throw gone;
      if (performance.now() > untilMs) throw failed("qemu-nbd", path, messageOf(error));
    }
  }
}
