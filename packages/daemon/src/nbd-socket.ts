/**
 * The daemon's NBD socket, `nbd.sock` beside the control socket, for the same users. Devices have priority: a daemon
 * that cannot open the socket serves without it, and retries.
 */
import { closeSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClaimedSocket } from "@blksnap/api-server";
import type { Driver, DriverExport } from "@blksnap/driver";
import { Reception } from "@blksnap/nbd";
import { listenLocal } from "@blksnap/uring";
import type { Logger } from "pino";

/** Another daemon may still be leaving it. */
const RETRY_MS = 2_000;
/** While the socket is created; then it gets its final mode. */
const MODE = 0o600;

export interface NbdSocketOptions {
  readonly socketPath: string;
  /** The socket that a service manager has created; undefined: the daemon creates its own. */
  readonly listenFd: number | undefined;
  readonly exports: Driver["nbd"];
  readonly logger: Logger;
}

export function nbdSocketPath(controlSocketPath: string): string {
  return join(dirname(controlSocketPath), "nbd.sock");
}

export class NbdSocket {
  readonly #options: NbdSocketOptions;
  readonly #closing = new AbortController();
  #retrying: Promise<void> = Promise.resolve();
  #socket: ClaimedSocket | undefined;
  #reception: Reception<DriverExport> | undefined;

  private constructor(options: NbdSocketOptions) {
    this.#options = options;
  }

  /** Serves now, or as soon as it can. */
  static async start(options: NbdSocketOptions): Promise<NbdSocket> {
    const socket = new NbdSocket(options);
    const problem = await socket.#listen();
    if (problem !== undefined) {
      const { logger, socketPath } = options;
      logger.warn({ socketPath, err: problem }, "cannot export over NBD yet; retrying");
      socket.#retrying = socket.#retry();
    }
    return socket;
  }

  /** Accepts no more connections. Existing ones end with their devices. */
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

  /** @returns why it cannot serve */
  async #listen(): Promise<unknown> {
    const { exports, listenFd, logger, socketPath } = this.#options;
    try {
      if (listenFd === undefined) await this.#claim();
      else this.#reception = this.#receive(listenFd);
    } catch (error) {
      return error;
    }
    exports.socketPath = socketPath;
    logger.info({ socketPath }, "exporting over NBD");
    return undefined;
  }

  async #claim(): Promise<void> {
    const { claimSocket, SOCKET_GROUP } = await import("@blksnap/api-server");
    let reception: Reception<DriverExport> | undefined;
    try {
      this.#socket = await claimSocket(this.#options.socketPath, SOCKET_GROUP, async (path) => {
        const listenFd = listenLocal(path, MODE);
        try {
          reception = this.#receive(listenFd);
        } catch (error) {
          closeSync(listenFd);
          throw error;
        }
      });
    } catch (error) {
      await reception?.close();
      throw error;
    }
    this.#reception = reception;
  }

  #receive(listenFd: number): Reception<DriverExport> {
    const { exports, logger } = this.#options;
    return new Reception({
      listenFd,
      exports,
      serve: (fd, agreement, received) => exports.serve(fd, agreement, received),
      onError: (error) => logger.warn({ err: error }, "NBD"),
    });
  }
}
