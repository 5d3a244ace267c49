/**
 * The daemon's NBD socket, `nbd.sock` beside the control socket, for the same users. The devices come first: a
 * daemon that cannot have it serves without, and tries again.
 */
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ClaimedSocket } from "@blksnap/api-server";
import type { Driver } from "@blksnap/driver";
import { Reception } from "@blksnap/nbd";
import { listenLocal } from "@blksnap/uring";
import type { Logger } from "pino";

/** Another daemon may be about to leave it. */
const RETRY_MS = 2_000;
const GROUP = "blksnap";
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
  readonly #serving: Promise<void>;
  #socket: ClaimedSocket | undefined;
  #reception: { close(): Promise<void> } | undefined;

  /** Serves as soon as it can. */
  constructor(options: NbdSocketOptions) {
    this.#options = options;
    this.#serving = this.#serve();
  }

  /** Takes no more connections. Those that there are end with their devices. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#serving;
    this.#options.exports.socketPath = undefined;
    await this.#socket?.release();
    await this.#reception?.close();
  }

  async #serve(): Promise<void> {
    const { controlSocketPath, logger } = this.#options;
    const { signal } = this.#closing;
    const socketPath = join(dirname(controlSocketPath), "nbd.sock");
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      try {
        await this.#listen(socketPath);
        logger.info({ socketPath }, "exporting over NBD");
        return;
      } catch (error) {
        if (isFirst) logger.warn({ socketPath, err: error }, "no export over NBD yet");
      }
      await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  async #listen(socketPath: string): Promise<void> {
    const { exports, logger } = this.#options;
    const { claimSocket } = await import("@blksnap/api-server");
    let reception: Reception<NonNullable<ReturnType<typeof exports.find>>> | undefined;
    try {
      this.#socket = await claimSocket(socketPath, GROUP, async (path) => {
        reception = new Reception({
          listenFd: listenLocal(path, MODE),
          exports,
          serve: (fd, agreement, received) => exports.serve(fd, agreement, received),
          onError: (error) => logger.warn({ err: error }, "NBD"),
        });
      });
    } catch (error) {
      await reception?.close();
      throw error;
    }
    this.#reception = reception;
    exports.socketPath = socketPath;
  }
}
