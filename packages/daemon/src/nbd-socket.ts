/**
 * The daemon's NBD socket, `nbd.sock` beside the control socket, for the same users. The devices come first: a
 * daemon that cannot have it serves without, and tries again.
 */
import { closeSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClaimedSocket } from "@blksnap/api-server";
import type { Driver, DriverExport } from "@blksnap/driver";
import { Reception } from "@blksnap/nbd";
import { listenLocal } from "@blksnap/uring";
import type { Logger } from "pino";

/** Another daemon may be about to leave it. */
const RETRY_MS = 2_000;
/** While the socket is made; then its own mode is set. */
const MODE = 0o600;

export interface NbdSocketOptions {
  readonly controlSocketPath: string;
  readonly exports: Driver["nbd"];
  readonly logger: Logger;
}

export class NbdSocket {
  readonly #options: NbdSocketOptions;
  readonly #closing = new AbortController();
  readonly #socketPath: string;
  #retrying: Promise<void> = Promise.resolve();
  #socket: ClaimedSocket | undefined;
  #reception: Reception<DriverExport> | undefined;

  private constructor(options: NbdSocketOptions) {
    this.#options = options;
    this.#socketPath = join(dirname(options.controlSocketPath), "nbd.sock");
  }

  /** Serves from now on, or as soon as it can. */
  static async start(options: NbdSocketOptions): Promise<NbdSocket> {
    const socket = new NbdSocket(options);
    const problem = await socket.#listen();
    if (problem !== undefined) {
      const { logger } = options;
      logger.warn({ socketPath: socket.#socketPath, err: problem }, "no export over NBD yet");
      socket.#retrying = socket.#retry();
    }
    return socket;
  }

  /** Takes no more connections. Those that there are end with their devices. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#retrying;
    this.#options.exports.socketPath = undefined;
    await this.#socket?.release();
    await this.#reception?.close();
  }

  async #retry(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted || (await this.#listen()) === undefined) return;
    }
  }

  /** @returns why it does not */
  async #listen(): Promise<unknown> {
    const { exports, logger } = this.#options;
    const { claimSocket, SOCKET_GROUP } = await import("@blksnap/api-server");
    const made: Reception<DriverExport>[] = [];
    try {
      this.#socket = await claimSocket(this.#socketPath, SOCKET_GROUP, async (path) => {
        const listenFd = listenLocal(path, MODE);
        try {
          const reception = new Reception({
            listenFd,
            exports,
            serve: (fd, agreement, received) => exports.serve(fd, agreement, received),
            onError: (error) => logger.warn({ err: error }, "NBD"),
          });
          made.push(reception);
        } catch (error) {
          closeSync(listenFd);
          throw error;
        }
      });
    } catch (error) {
      for (const reception of made) await reception.close();
      return error;
    }
    [this.#reception] = made;
    exports.socketPath = this.#socketPath;
    logger.info({ socketPath: this.#socketPath }, "exporting over NBD");
    return undefined;
  }
}
